/* load-replay: see replay.h. Options, time, end. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "bench/e2e/replay.h"
#include "bench/load/text.h"
#include "bench/load/tool.h"
#include "bench/sim/cases.h"

enum { SWEEP_MS = 100 };

uint64_t replay_now_ns(const struct replay *replay)
{
    return uv_hrtime() - replay->begin_ns;
}

static void stop_if_done(struct replay *replay)
{
    bool all_sent = replay->stopping || replay->next_index == replay->workload->request_count;
    if (all_sent && replay->open_count == 0) {
        uv_stop(&replay->loop);
    }
}

void replay_ended(struct replay *replay, size_t index, enum outcome_end end)
{
    struct outcome *outcome = &replay->outcomes[index];
    outcome->end = end;
    outcome->last_ns = end == OUTCOME_COMPLETE ? outcome->last_ns : replay_now_ns(replay);
    replay->open_count--;
    stop_if_done(replay);
}

/* A timer of the loop is a millisecond coarse, which would be part of every latency. */
static void arm(struct replay *replay)
{
    if (replay->next_index == replay->workload->request_count) {
        return;
    }
    uint64_t at_ns = replay->begin_ns + replay->outcomes[replay->next_index].due_ns;
    struct itimerspec when = {.it_value = {.tv_sec = (time_t)(at_ns / SIM_NS_PER_S),
                                           .tv_nsec = (long)(at_ns % SIM_NS_PER_S)}};
    if (timerfd_settime(replay->due_fd, TFD_TIMER_ABSTIME, &when, NULL) != 0) {
        tool_die("timerfd_settime", uv_translate_sys_error(errno));
    }
}

static void on_due(uv_poll_t *poll, int status, int events)
{
    struct replay *replay = poll->data;
    uint64_t times = 0;
    (void)status;
    (void)events;
    (void)!read(replay->due_fd, &times, sizeof times); /* What is due is told by the clock. */
    while (!replay->stopping && replay->next_index < replay->workload->request_count &&
           replay->outcomes[replay->next_index].due_ns <= replay_now_ns(replay)) {
        client_send(replay, replay->next_index++);
    }
    arm(replay);
    stop_if_done(replay);
}

static void on_sweep(uv_timer_t *timer)
{
    client_sweep(timer->data);
}

/* What is open is waited for; a second signal ends that. */
static void on_signal(uv_signal_t *signal, int number)
{
    (void)number;
    struct replay *replay = signal->data;
    if (replay->stopping) {
        uv_stop(&replay->loop);
    }
    replay->stopping = true;
    stop_if_done(replay);
}

static void prepare(struct replay *replay)
{
    size_t count = replay->workload->request_count;
    replay->outcomes = tool_must(calloc(count + 1, sizeof *replay->outcomes));
    for (size_t i = 0; i < count; i++) {
        const struct sim_request *request = &replay->workload->requests[i];
        replay->outcomes[i].due_ns =
            (uint64_t)((double)request->arrival_ns / replay->options.speed);
    }
    replay->answers = replay_answers(replay->workload);
}

static void start(struct replay *replay)
{
    static const int numbers[] = {SIGTERM, SIGINT};
    (void)signal(SIGPIPE, SIG_IGN); /* Writes report it. */
    (void)uv_loop_init(&replay->loop);
    (void)uv_ip4_addr("127.0.0.1", replay->options.port, &replay->address);
    client_init(replay);
    for (size_t i = 0; i < 2; i++) {
        (void)uv_signal_init(&replay->loop, &replay->signals[i]);
        replay->signals[i].data = replay;
        (void)uv_signal_start(&replay->signals[i], on_signal, numbers[i]);
    }
    (void)uv_timer_init(&replay->loop, &replay->sweep);
    replay->sweep.data = replay;
    (void)uv_timer_start(&replay->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
    replay->due_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    (void)uv_poll_init(&replay->loop, &replay->due, replay->due_fd);
    replay->due.data = replay;
    (void)uv_poll_start(&replay->due, UV_READABLE, on_due);
    replay->begin_ns = uv_hrtime();
    arm(replay);
}

/* ---- Options ---- */

struct command {
    struct replay_options replay;
    const char *case_name;
    const char *conversations;
    const char *traces_dir;
    const char *csv;
    uint64_t seed;
    double rate; /* 0: the case's own; so are these. */
    double seconds;
    double length;
    bool describe;
};

static _Noreturn void usage(int status)
{
    FILE *out = status == 0 ? stdout : stderr;
    (void)fputs("usage: load-replay --port N --case NAME [options]\n"
                "\n"
                "Sends a workload's requests to 127.0.0.1:N when they are due, reads the streams,\n"
                "and prints one JSON object; times in seconds. Each request names the text of its\n"
                "answer (field \"seed\"), which mock-engine then gives.\n"
                "\n"
                "  --case NAME           a case of bench-sim: `bench-sim list`\n"
                "  --conversations FILE  instead: a list of {\"conversations\": [{\"from\", "
                "\"value\"}]}\n"
                "                        (ShareGPT), or lines of {\"messages\": [{\"role\", "
                "\"content\"}]}\n"
                "  --traces DIR          recorded workloads: bench/README.md\n"
                "  --seed N              of the workload (1)\n"
                "  --rate R              instead of the case's own; of conversations: requests a "
                "second\n"
                "  --seconds S           likewise\n"
                "  --length X            the case X times as long (1)\n"
                "  --speed X             arrivals come X times as fast (1)\n"
                "  --chat                as messages instead of one prompt\n"
                "  --model NAME          (mock-model)\n"
                "  --timeout S           of a request; not multiplied by --speed (60)\n"
                "  --csv FILE            a line for each request\n"
                "  --describe            send nothing: print the case's fleet as JSON\n"
                "  --help\n",
                out);
    exit(status);
}

static void complain(void)
{
    usage(2);
}

/* The option's place for a number; NULL: it has none. */
static double *real_option(struct command *command, const char *name)
{
    const struct {
        const char *name;
        double *value;
    } options[] = {
        {"--rate", &command->rate},
        {"--seconds", &command->seconds},
        {"--length", &command->length},
        {"--speed", &command->replay.speed},
        {"--timeout", &command->replay.timeout_s},
    };
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        if (strcmp(options[i].name, name) == 0) {
            return options[i].value;
        }
    }
    return NULL;
}

static const char **text_option(struct command *command, const char *name)
{
    const struct {
        const char *name;
        const char **value;
    } options[] = {
        {"--case", &command->case_name},    {"--conversations", &command->conversations},
        {"--traces", &command->traces_dir}, {"--model", &command->replay.model},
        {"--csv", &command->csv},
    };
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        if (strcmp(options[i].name, name) == 0) {
            return options[i].value;
        }
    }
    return NULL;
}

static void read_options(int argc, char **argv, struct command *command)
{
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i];
        double *real = real_option(command, name);
        const char **text = text_option(command, name);
        if (strcmp(name, "--chat") == 0) {
            command->replay.chat = true;
        } else if (strcmp(name, "--describe") == 0) {
            command->describe = true;
        } else if (strcmp(name, "--help") == 0) {
            usage(0);
        } else if (strcmp(name, "--port") == 0) {
            command->replay.port = (int)tool_number(argc, argv, ++i, complain);
        } else if (strcmp(name, "--seed") == 0) {
            command->seed = (uint64_t)tool_number(argc, argv, ++i, complain);
        } else if (real != NULL) {
            *real = tool_number(argc, argv, ++i, complain);
        } else if (text != NULL && i + 1 < argc) {
            *text = argv[++i];
        } else {
            usage(2);
        }
    }
    bool one = (command->case_name == NULL) != (command->conversations == NULL);
    if (!one || (command->replay.port == 0 && !command->describe) || command->replay.speed <= 0) {
        usage(2);
    }
}

static struct sim_case find_case(const struct command *command)
{
    const struct sim_case *found = sim_case_find(command->case_name, strlen(command->case_name));
    struct sim_case which = found != NULL ? *found : (struct sim_case){0};
    if (found == NULL) {
        sim_fail(command->case_name, "there is no such case (see bench-sim list)");
    }
    if (which.needs_traces && command->traces_dir == NULL) {
        sim_fail(command->case_name, "it needs --traces DIR");
    }
    which.rate = command->rate > 0 ? command->rate : which.rate;
    which.seconds = command->seconds > 0 ? command->seconds : which.seconds;
    which.seconds *= command->length;
    return which;
}

static void make_workload(const struct command *command, struct sim_workload *out)
{
    if (command->conversations != NULL) {
        conversations_read(command->conversations, command->seed, command->rate, command->seconds,
                           out);
    } else {
        struct sim_case which = find_case(command);
        sim_case_generate(&which, out, command->seed, 1, command->traces_dir);
    }
    for (size_t i = 0; i < out->request_count; i++) {
        if (out->requests[i].token_bytes != TEXT_TOKEN_BYTES) {
            sim_fail(command->case_name, "tokens of other than 4 bytes cannot be sent");
        }
    }
}

static int describe(const struct command *command)
{
    struct sim_case which = find_case(command);
    struct sim_setup setup = sim_case_setup(&which, NULL, NULL, 0, 1);
    (void)printf("{\"engines\":%zu,\"kv_tokens\":%llu,\"prefill_tps\":%g,\"decode_ms\":%g,"
                 "\"max_batch\":%zu,\"block_tokens\":%u}\n",
                 setup.engine_count, (unsigned long long)setup.engine.engine.kv_tokens,
                 setup.engine.engine.prefill_tokens_per_s, setup.engine.engine.decode_ns / 1e6,
                 setup.engine.engine.batch_max, setup.engine.block_tokens);
    return 0;
}

int main(int argc, char **argv)
{
    struct command command = {
        .replay = {.model = "mock-model", .speed = 1, .timeout_s = 60}, .seed = 1, .length = 1};
    read_options(argc, argv, &command);
    if (command.describe) {
        return describe(&command);
    }
    struct sim_workload workload = {0};
    make_workload(&command, &workload);
    struct replay *replay = tool_must(calloc(1, sizeof *replay));
    replay->options = command.replay;
    replay->workload = &workload;
    prepare(replay);
    start(replay);
    (void)uv_run(&replay->loop, UV_RUN_DEFAULT);
    double seconds = (double)replay_now_ns(replay) / (double)SIM_NS_PER_S;
    client_close_all(replay);
    result_print(replay, seconds);
    if (command.csv != NULL && !result_write_csv(replay, command.csv)) {
        tool_die(command.csv, uv_translate_sys_error(errno));
    }
    return 0;
}
