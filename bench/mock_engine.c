/* mock-engine: an OpenAI-compatible engine with a simulated prefix cache. Options and start. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/mock/server.h"

enum {
    PORT_MAX = 65535,
    BLOCK_TOKENS_MAX = 4096,
    KV_TOKENS_MIN = BLOCK_TOKENS_MAX,
    TOKENS_MAX = 1000000,
    BATCH_MAX = 100000
};

static const char usage[] =
    "usage: mock-engine [options]\n"
    "\n"
    "An OpenAI-compatible engine that only pretends: block LRU prefix cache, chunked prefill and\n"
    "batched decoding as waiting times, as bench-sim has them. For tests and benchmarks of\n"
    "routers.\n"
    "\n"
    "  --host ADDRESS      listen there (127.0.0.1)\n"
    "  --port N            0 takes a free port (0); the first line of output names it\n"
    "  --model NAME        a model it serves; may be given several times (mock-model)\n"
    "  --engine-id TEXT    sent as header x-engine-id with every answer (engine)\n"
    "  --kv-tokens N       size of the KV cache in tokens of 4 bytes (131072)\n"
    "  --block-tokens N    size of its blocks (16)\n"
    "  --prefill-tps X     prompt tokens computed per second (20000)\n"
    "  --role ROLE         prefill: takes only requests whose KV cache goes on to another\n"
    "                      engine; decode: only those whose KV cache comes from one; any\n"
    "                      (any)\n"
    "  --fetch-tps X       prompt tokens fetched from another engine per second (80000)\n"
    "  --decode-ms X       milliseconds per answer token (10)\n"
    "  --max-batch N       requests that run at one time; the rest wait (64)\n"
    "  --max-tokens N      tokens of an answer where the request names no number (16)\n"
    "  --keep-alive-ms N   idle connections are closed after it; 0: never (5000)\n"
    "  --start-time X      what its metrics say of its start, in Unix seconds (when it was)\n"
    "  --help\n";

/* A decimal number from `min` to `max`; ends the program if it is none. */
static double read_number(const char *option, const char *text, double min, double max)
{
    char *end = NULL;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= min && value <= max)) {
        (void)fprintf(stderr, "mock-engine: --%s: \"%s\" is not a number from %.15g to %.15g\n",
                      option, text, min, max);
        exit(2);
    }
    return value;
}

static void add_model(struct server_options *options, const char *model)
{
    if (options->model_count == SERVER_MODELS_MAX) {
        (void)fprintf(stderr, "mock-engine: more than %d models\n", SERVER_MODELS_MAX);
        exit(2);
    }
    options->models[options->model_count++] = model;
}

static void set_engine_id(struct server_options *options, const char *text)
{
    for (const char *at = text; *at != '\0'; at++) {
        if ((unsigned char)*at <= ' ' || (unsigned char)*at >= 0x7f || strlen(text) > 32) {
            (void)fprintf(stderr, "mock-engine: --engine-id takes up to 32 visible characters\n");
            exit(2);
        }
    }
    options->engine_id = text;
}

static enum server_role read_role(const char *text)
{
    static const char *const roles[] = {
        [SERVER_ANY] = "any", [SERVER_PREFILLS] = "prefill", [SERVER_DECODES] = "decode"};
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        if (strcmp(text, roles[i]) == 0) {
            return (enum server_role)i;
        }
    }
    (void)fprintf(stderr, "mock-engine: --role: \"%s\" is none of any, prefill, decode\n", text);
    exit(2);
}

enum engine_option {
    HOST,
    PORT,
    MODEL,
    ENGINE_ID,
    KV_TOKENS,
    BLOCK_TOKENS,
    PREFILL_TPS,
    ROLE,
    FETCH_TPS,
    DECODE_MS,
    MAX_BATCH,
    MAX_TOKENS,
    KEEP_ALIVE_MS,
    START_TIME,
    HELP,
    OPTION_COUNT
};

static const struct option_name {
    const char *name;
    int has_value;
} names[OPTION_COUNT] = {
    [HOST] = {"host", 1},
    [PORT] = {"port", 1},
    [MODEL] = {"model", 1},
    [ENGINE_ID] = {"engine-id", 1},
    [KV_TOKENS] = {"kv-tokens", 1},
    [BLOCK_TOKENS] = {"block-tokens", 1},
    [PREFILL_TPS] = {"prefill-tps", 1},
    [ROLE] = {"role", 1},
    [FETCH_TPS] = {"fetch-tps", 1},
    [DECODE_MS] = {"decode-ms", 1},
    [MAX_BATCH] = {"max-batch", 1},
    [MAX_TOKENS] = {"max-tokens", 1},
    [KEEP_ALIVE_MS] = {"keep-alive-ms", 1},
    [START_TIME] = {"start-time", 1},
    [HELP] = {"help", 0},
};

static void set_option(struct server_options *options, int which, const char *text)
{
    const char *name = names[which].name;
    switch ((enum engine_option)which) {
    case HOST:
        options->host = text;
        break;
    case PORT:
        options->port = (int)read_number(name, text, 0, PORT_MAX);
        break;
    case MODEL:
        add_model(options, text);
        break;
    case ENGINE_ID:
        set_engine_id(options, text);
        break;
    case KV_TOKENS:
        options->engine.kv_tokens = (uint64_t)read_number(name, text, KV_TOKENS_MIN, 1e10);
        break;
    case BLOCK_TOKENS:
        options->defaults.block_tokens = (uint32_t)read_number(name, text, 1, BLOCK_TOKENS_MAX);
        break;
    case PREFILL_TPS:
        options->engine.prefill_tokens_per_s = read_number(name, text, 1, 1e12);
        break;
    case ROLE:
        options->role = read_role(text);
        break;
    case FETCH_TPS:
        options->engine.fetch_tokens_per_s = read_number(name, text, 1, 1e12);
        break;
    case DECODE_MS:
        options->engine.decode_ns = read_number(name, text, 0, 1e6) * 1e6;
        break;
    case MAX_BATCH:
        options->engine.batch_max = (size_t)read_number(name, text, 1, BATCH_MAX);
        break;
    case MAX_TOKENS:
        options->defaults.output_tokens = (uint64_t)read_number(name, text, 1, TOKENS_MAX);
        break;
    case KEEP_ALIVE_MS:
        options->keep_alive_ms = (uint64_t)read_number(name, text, 0, 1e9);
        break;
    case START_TIME:
        options->start_time_s = read_number(name, text, 1, 1e10);
        break;
    case HELP:
    case OPTION_COUNT:
        (void)fputs(usage, stdout);
        exit(0);
    }
}

int main(int argc, char **argv)
{
    struct server_options options = {
        .engine = ENGINE_OPTIONS_DEFAULT,
        .host = "127.0.0.1",
        .engine_id = "engine",
        .defaults = {.output_tokens = 16, .block_tokens = 16},
        .keep_alive_ms = 5000,
    };
    struct option long_options[OPTION_COUNT + 1] = {{0}};
    for (int i = 0; i < OPTION_COUNT; i++) {
        long_options[i] =
            (struct option){.name = names[i].name, .has_arg = names[i].has_value, .val = i};
    }
    for (;;) {
        int which = getopt_long(argc, argv, "", long_options, NULL);
        if (which < 0) {
            break;
        }
        if (which == '?') {
            (void)fputs(usage, stderr);
            return 2;
        }
        set_option(&options, which, optarg);
    }
    if (optind < argc) {
        (void)fprintf(stderr, "mock-engine: \"%s\" is no option\n", argv[optind]);
        return 2;
    }
    if (options.model_count == 0) {
        add_model(&options, "mock-model");
    }
    return server_run(&options);
}
