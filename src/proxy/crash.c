#include "proxy/crash.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

static const int numbers[] = {SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE};

enum { NUMBERS = sizeof numbers / sizeof *numbers };

/* The only state of a process that hangs from no struct: a signal handler is given nothing. */
static struct hashtrie_crash_mark mark = HASHTRIE_CRASH_MARK_INIT;
static struct sigaction before[NUMBERS];
static bool installed;

static void on_crash(int number)
{
    hashtrie_crash_mark_write(&mark);
    for (size_t i = 0; i < NUMBERS; i++) {
        if (numbers[i] == number) {
            (void)sigaction(number, &before[i], NULL); /* A sanitizer's, or the default. */
        }
    }
    (void)raise(number); /* Comes once this returns. */
}

struct hashtrie_crash_mark *crash_mark_install(void)
{
    struct sigaction action = {.sa_handler = on_crash};
    (void)sigemptyset(&action.sa_mask); /* Never fails. */
    for (size_t i = 0; i < NUMBERS && !installed; i++) {
        (void)sigaction(numbers[i], &action, &before[i]); /* These can be caught. */
    }
    installed = true;
    return &mark;
}
