/*
 * `watch`: a store's figures, again and again. On a terminal one screen that is drawn over, else a
 * line (or a JSON object) each time. The store is opened anew for each look: a router may have
 * replaced its file.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <unistd.h>

#include "base/clock.h"
#include "dump/dump.h"

enum {
    LINES_DEFAULT = 24,
    COLUMNS_DEFAULT = 80,
    ENGINES_SHOWN_MAX = 256,
    HEAD_LINES = 12,
    FAILURES_MAX = 5, /* In a row: a router may be replacing the file. */
};

struct engine {
    uint32_t id;
    uint32_t odometer_kib;
    uint64_t seen_unix_s;
    char name[DUMP_TEXT_BYTES];
};

/* What was seen at one moment. */
struct look {
    struct hashtrie_reader_info info;
    uint64_t at_ns;
    struct engine engines[ENGINES_SHOWN_MAX];
    size_t engine_count;
};

struct watch {
    struct dump *dump;
    struct look looks[2]; /* The one before, and now. */
    struct look next;     /* Being taken. */
    unsigned failures_in_row;
    size_t look_count;
    bool screen;
    unsigned lines;
    unsigned columns;
};

static bool add_engine(void *user, const struct hashtrie_reader_endpoint *endpoint)
{
    struct look *look = user;
    struct engine *engine = &look->engines[look->engine_count++];
    *engine = (struct engine){.id = endpoint->id,
                              .odometer_kib = endpoint->odometer_kib,
                              .seen_unix_s = endpoint->seen_unix_s};
    (void)snprintf(engine->name, sizeof engine->name, "%s",
                   endpoint->name); /* Cut off if longer. */
    return look->engine_count < ENGINES_SHOWN_MAX;
}

static enum hashtrie_status take_look(struct watch *watch)
{
    struct hashtrie_reader *reader = NULL;
    struct look *look = &watch->next;
    *look = (struct look){.at_ns = clock_monotonic_ns()};
    enum hashtrie_status status = hashtrie_reader_open(watch->dump->arguments[0], &reader);
    if (status == HASHTRIE_OK) {
        status = hashtrie_reader_get_info(reader, &look->info);
    }
    if (status == HASHTRIE_OK) {
        status = hashtrie_reader_endpoints(reader, add_engine, look);
    }
    hashtrie_reader_close(reader);
    watch->dump->now_s = clock_unix_ns() / CLOCK_NS_PER_S;
    if (status == HASHTRIE_OK) {
        watch->looks[0] = watch->looks[1];
        watch->looks[1] = *look;
        watch->look_count++;
    }
    return status;
}

/* A second, since the look before; 0 at the first. Counters may go down: another file. */
static double rate(const struct watch *watch, uint64_t before, uint64_t now)
{
    uint64_t ns = watch->looks[1].at_ns - watch->looks[0].at_ns;
    return watch->look_count < 2 || ns == 0
               ? 0
               : ((double)now - (double)before) * (double)CLOCK_NS_PER_S / (double)ns;
}

static double odometer_rate(const struct watch *watch, const struct engine *engine)
{
    const struct look *before = &watch->looks[0];
    for (size_t i = 0; i < before->engine_count && watch->look_count > 1; i++) {
        if (before->engines[i].id == engine->id) {
            uint32_t moved = engine->odometer_kib - before->engines[i].odometer_kib; /* Wraps. */
            return rate(watch, 0, moved);
        }
    }
    return 0;
}

/* ---- A screen ---- */

static volatile sig_atomic_t stop_asked;
static volatile sig_atomic_t resized;

static void on_signal(int signal)
{
    if (signal == SIGWINCH) {
        resized = 1;
    } else {
        stop_asked = 1;
    }
}

static void measure(struct watch *watch)
{
    struct winsize size;
    bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0;
    watch->lines = known ? size.ws_row : LINES_DEFAULT;
    watch->columns = known && size.ws_col > 0 ? size.ws_col : COLUMNS_DEFAULT;
}

/* One line, cut at the screen's edge; errors are seen by fflush(). */
__attribute__((format(printf, 2, 3))) static void line(const struct watch *watch,
                                                       const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): clang 14 does not see va_start(). */
    (void)vsnprintf(text, sizeof text, format, arguments); /* Cut off if longer. */
    va_end(arguments);
    if (watch->columns < sizeof text) {
        text[watch->columns] = '\0';
    }
    dump_print_text(text);
    (void)printf("\033[K\n");
}

static void screen_engines(const struct watch *watch)
{
    const struct look *look = &watch->looks[1];
    size_t room = watch->lines > HEAD_LINES + 2 ? watch->lines - HEAD_LINES - 2 : 0;
    if (room > 0) {
        line(watch, "%6s  %8s  %12s  %s", "ID", "WRITTEN", "SENT/s", "URL");
    }
    for (size_t i = 0; i < look->engine_count && i < room; i++) {
        const struct engine *engine = &look->engines[look->engine_count - 1 - i];
        char age[DUMP_TEXT_BYTES];
        char sent[DUMP_TEXT_BYTES];
        dump_format_age(age, watch->dump->now_s, engine->seen_unix_s);
        dump_format_bytes(sent, (uint64_t)odometer_rate(watch, engine) * 1024);
        line(watch, "%6" PRIu32 "  %8s  %12s  %s", engine->id, age, sent, engine->name);
    }
}

static void draw(const struct watch *watch)
{
    const struct hashtrie_reader_info *info = &watch->looks[1].info;
    const struct hashtrie_reader_info *before = &watch->looks[0].info;
    char count[DUMP_TEXT_BYTES];
    char used[DUMP_TEXT_BYTES];
    char cap[DUMP_TEXT_BYTES];
    char age[DUMP_TEXT_BYTES];
    (void)printf("\033[H");
    line(watch, "%s  every %.1f s; Ctrl-C ends", watch->dump->arguments[0],
         watch->dump->options.interval_ms / 1000.0);
    line(watch, "%s", "");
    dump_format_count(count, info->node_count);
    line(watch, "nodes       %16s  %+10.1f /s", count,
         rate(watch, before->node_count, info->node_count));
    dump_format_count(count, info->chunk_count);
    line(watch, "chunks      %16s  %+10.1f /s", count,
         rate(watch, before->chunk_count, info->chunk_count));
    dump_format_bytes(used, info->used_bytes);
    dump_format_bytes(cap, info->cap_bytes);
    line(watch, "in use      %16s  of %s (%.1f %%)", used, cap,
         info->cap_bytes == 0 ? 0 : 100.0 * (double)info->used_bytes / (double)info->cap_bytes);
    dump_format_bytes(used, info->file_bytes);
    line(watch, "file        %16s", used);
    dump_format_age(age, watch->dump->now_s, info->last_checkpoint_unix_ms / 1000);
    line(watch, "checkpoint  %16s  ago%s", age, info->clean ? ", closed in order" : "");
    dump_format_count(count, info->reload_found_count);
    line(watch, "found       %16s  %+10.1f /s", count,
         rate(watch, before->reload_found_count, info->reload_found_count));
    dump_format_count(count, info->reload_missed_count);
    line(watch, "missed      %16s  %+10.1f /s", count,
         rate(watch, before->reload_missed_count, info->reload_missed_count));
    line(watch, "%s", "");
    screen_engines(watch);
    (void)printf("\033[J");
}

/* ---- Lines ---- */

static void print_line(const struct watch *watch)
{
    const struct hashtrie_reader_info *info = &watch->looks[1].info;
    char time[DUMP_TEXT_BYTES];
    char used[DUMP_TEXT_BYTES];
    char age[DUMP_TEXT_BYTES];
    dump_format_time(time, watch->dump->now_s);
    dump_format_bytes(used, info->used_bytes);
    dump_format_age(age, watch->dump->now_s, info->last_checkpoint_unix_ms / 1000);
    (void)printf("%s  nodes %" PRIu64 "  chunks %" PRIu64 "  in use %s  checkpoint %s ago  found "
                 "%" PRIu64 "  missed %" PRIu64 "\n",
                 time, info->node_count, info->chunk_count, used, age, info->reload_found_count,
                 info->reload_missed_count);
}

static enum dump_exit print_json(const struct watch *watch)
{
    struct dump *dump = watch->dump;
    const struct look *look = &watch->looks[1];
    json_write_object(&dump->json);
    dump_json_number(dump, "time", dump->now_s);
    dump_json_number(dump, "nodes", look->info.node_count);
    dump_json_number(dump, "chunks", look->info.chunk_count);
    dump_json_number(dump, "used_bytes", look->info.used_bytes);
    dump_json_number(dump, "file_bytes", look->info.file_bytes);
    dump_json_number(dump, "max_bytes", look->info.cap_bytes);
    dump_json_number(dump, "last_checkpoint_ms", look->info.last_checkpoint_unix_ms);
    dump_json_number(dump, "reloads_found", look->info.reload_found_count);
    dump_json_number(dump, "reloads_missed", look->info.reload_missed_count);
    json_write_key(&dump->json, "closed_in_order");
    json_write_bool(&dump->json, look->info.clean);
    json_write_end(&dump->json);
    return dump_json_end(dump);
}

static enum dump_exit tell(const struct watch *watch)
{
    enum dump_exit result = DUMP_OK;
    if (watch->screen) {
        draw(watch);
    } else if (watch->dump->options.json) {
        result = print_json(watch);
    } else {
        print_line(watch);
    }
    return fflush(stdout) == 0 ? result : DUMP_CANNOT;
}

/* ---- The loop ---- */

static void catch_signals(sigset_t *waiting)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGWINCH};
    struct sigaction action = {.sa_handler = on_signal};
    sigset_t blocked;
    (void)sigemptyset(&action.sa_mask); /* These calls cannot fail for valid signals. */
    (void)sigemptyset(&blocked);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        (void)sigaddset(&blocked, signals[i]);
        (void)sigaction(signals[i], &action, NULL);
    }
    (void)sigprocmask(SIG_BLOCK, &blocked, waiting); /* They arrive in sigtimedwait's place. */
}

/* Until the next look is due; a new size of the screen is drawn at once. False: to end. */
static bool wait_for_next(struct watch *watch, const sigset_t *waiting, uint64_t due_ns)
{
    while (stop_asked == 0) {
        uint64_t now_ns = clock_monotonic_ns();
        if (now_ns >= due_ns) {
            return true;
        }
        struct timespec left = {.tv_sec = (time_t)((due_ns - now_ns) / CLOCK_NS_PER_S),
                                .tv_nsec = (long)((due_ns - now_ns) % CLOCK_NS_PER_S)};
        (void)pselect(0, NULL, NULL, NULL, &left, waiting); /* Ends early with a signal. */
        if (resized != 0 && watch->screen) {
            resized = 0;
            measure(watch);
            draw(watch);
            (void)fflush(stdout); /* Shows at the next look. */
        }
    }
    return false;
}

static enum dump_exit run(struct watch *watch)
{
    const struct dump_options *options = &watch->dump->options;
    sigset_t waiting;
    catch_signals(&waiting);
    uint64_t due_ns = clock_monotonic_ns();
    for (uint32_t i = 0; options->count == 0 || i < options->count; i++) {
        if (!wait_for_next(watch, &waiting, due_ns)) {
            return DUMP_OK;
        }
        due_ns += options->interval_ms * CLOCK_NS_PER_MS;
        enum hashtrie_status status = take_look(watch);
        bool again = status == HASHTRIE_OK || watch->look_count > 0;
        watch->failures_in_row = status == HASHTRIE_OK ? 0 : watch->failures_in_row + 1;
        if (!again || watch->failures_in_row > FAILURES_MAX) {
            return dump_cannot(watch->dump, status);
        }
        enum dump_exit told = status == HASHTRIE_OK ? tell(watch) : DUMP_OK;
        if (told != DUMP_OK) {
            return told;
        }
    }
    return DUMP_OK;
}

enum dump_exit dump_watch(struct dump *dump)
{
    struct watch *watch = mem_alloc_zero(&dump->mem, sizeof *watch);
    if (watch == NULL) {
        return dump_cannot(dump, HASHTRIE_ENOMEM);
    }
    watch->dump = dump;
    watch->screen = isatty(STDOUT_FILENO) == 1 && !dump->options.json;
    measure(watch);
    if (watch->screen) {
        (void)printf("%s", DUMP_SCREEN_BEGIN); /* Errors are seen by fflush(). */
    }
    enum dump_exit result = run(watch);
    if (watch->screen) {
        (void)printf("%s", DUMP_SCREEN_END);
    }
    mem_free(&dump->mem, watch, sizeof *watch);
    return result;
}
