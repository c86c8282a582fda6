#include "store/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"

enum {
    TELL_MS = 100,
    LOOK_MS = 50,
    REAP_ATTEMPTS = 40, /* Of LOOK_MS each; a process stuck in the kernel is left. */
    LINE_FD = 3,
};

struct message {
    uint64_t done;
    uint64_t total;
    int32_t status;
    int32_t last;
};

/* Smaller than PIPE_BUF: whole or not at all. */
static void send_message(int fd, const struct message *message)
{
    (void)!write(fd, message, sizeof *message); /* Nobody is there: the child dies anyway. */
}

void child_tell(struct child_line *line, uint64_t done, uint64_t total)
{
    uint64_t now_ns = clock_monotonic_ns();
    if (now_ns >= line->told_ns + TELL_MS * CLOCK_NS_PER_MS) {
        struct message message = {.done = done, .total = total};
        line->told_ns = now_ns;
        send_message(line->fd, &message);
    }
}

/* ---- In the child ---- */

/* Nothing of the parent's is in reach: its handlers, its descriptors, its terminal. */
static void leave_parent(int *fd, uint32_t cpu_seconds)
{
    sigset_t none;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* Linux has it. */
    for (int number = 1; number < NSIG; number++) {
        (void)signal(number, SIG_DFL); /* Those that have no handler refuse. */
    }
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)dup2(*fd, LINE_FD);
    *fd = LINE_FD;
    (void)close_range(LINE_FD + 1, ~0U, 0); /* Else they stay open for a moment. */
    int null = open("/dev/null", O_RDWR);
    for (int i = 0; i < LINE_FD && null >= 0; i++) {
        (void)dup2(null, i);
    }
    struct rlimit no_core = {.rlim_cur = 0, .rlim_max = 0};
    struct rlimit cpu = {.rlim_cur = cpu_seconds, .rlim_max = cpu_seconds};
    (void)setrlimit(RLIMIT_CORE, &no_core); /* A crash would only be louder. */
    (void)setrlimit(RLIMIT_CPU, &cpu);      /* Endless work would only be noticed by people. */
}

_Noreturn static void run(const struct child_job *job, int fd)
{
    leave_parent(&fd, job->cpu_seconds_max);
    struct child_line line = {.fd = fd};
    struct message message = {.status = job->work(job->user, &line), .last = 1};
    send_message(fd, &message);
    _exit(0);
}

/* ---- In the parent ---- */

/* Reads what has come; *silent: nothing for a while. False: the line is closed. */
static bool listen_once(int fd, struct message *latest, bool *silent)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    *silent = poll(&poll_fd, 1, LOOK_MS) <= 0;
    if (*silent) {
        return true;
    }
    struct message message;
    ssize_t size = read(fd, &message, sizeof message);
    if (size == (ssize_t)sizeof message) {
        *latest = message;
        return true;
    }
    return size < 0 && errno == EINTR;
}

/* Also where somebody else's fork holds the line's other end. */
static bool has_ended(pid_t pid)
{
    siginfo_t info = {.si_pid = 0};
    int code = waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT);
    return code != 0 || info.si_pid == pid;
}

/* False: it is stuck in the kernel, and left to init. */
static bool reap(pid_t pid, int *how)
{
    for (int i = 0; i < REAP_ATTEMPTS; i++) {
        pid_t found = waitpid(pid, how, WNOHANG);
        if (found == pid) {
            return true;
        }
        if (found < 0 && errno != EINTR) {
            *how = 0; /* The program ignores SIGCHLD. */
            return true;
        }
        (void)poll(NULL, 0, i == 0 ? 1 : LOOK_MS);
    }
    return false;
}

static bool is_crash(int how)
{
    if (!WIFSIGNALED(how)) {
        return true; /* It ended without a word, as under a sanitizer. */
    }
    int number = WTERMSIG(how);
    return number == SIGSEGV || number == SIGBUS || number == SIGABRT || number == SIGILL ||
           number == SIGFPE || number == SIGXCPU || number == SIGTRAP || number == SIGSYS;
}

static enum child_end watch(const struct child_job *job, pid_t pid, int fd,
                            enum hashtrie_status *status)
{
    struct message latest = {0};
    bool given_up = false;
    int how = 0;
    bool ended = false; /* Seen before the line was silent: nothing more comes. */
    bool silent = false;
    while (latest.last == 0 && !given_up && !(ended && silent) &&
           listen_once(fd, &latest, &silent)) {
        given_up = !job->on_progress(job->owner, latest.done, latest.total);
        ended = ended || (silent && has_ended(pid));
    }
    if (given_up) {
        (void)kill(pid, SIGKILL);
    }
    bool reaped = reap(pid, &how);
    if (latest.last != 0) {
        *status = (enum hashtrie_status)latest.status;
        return CHILD_ENDED;
    }
    return !given_up && reaped && is_crash(how) ? CHILD_CRASHED : CHILD_KILLED;
}

enum child_end child_run(const struct child_job *job, enum hashtrie_status *status)
{
    int line[2];
    if (pipe2(line, O_CLOEXEC) != 0) {
        return CHILD_NONE;
    }
    pid_t pid = fork();
    if (pid == 0) {
        run(job, line[1]);
    }
    (void)close(line[1]);
    enum child_end end = pid < 0 ? CHILD_NONE : watch(job, pid, line[0], status);
    (void)close(line[0]);
    return end;
}
