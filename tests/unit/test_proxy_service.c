/* What a service manager says, and what it is told. */
#include <stdio.h>
#include <unistd.h>

#include "proxy/service.h"
#include "support/test.h"

/* name, value, name, value, .., NULL */
static const char *look_up(void *user, const char *name)
{
    const char *const *variables = user;
    for (; *variables != NULL; variables += 2) {
        if (strcmp(*variables, name) == 0) {
            return variables[1];
        }
    }
    return NULL;
}

#define SET(...) ((const char *[]){__VA_ARGS__, NULL})

static void sockets_for_this_process_are_taken(void **state)
{
    (void)state;
    struct service_sockets sockets;
    assert_null(service_read_sockets(
        look_up, SET("LISTEN_PID", "42", "LISTEN_FDS", "3", "LISTEN_FDNAMES", "web::admin"), 42,
        &sockets));
    assert_int_equal(sockets.count, 3);
    assert_true(span_is(service_socket_name(&sockets, 0), "web"));
    assert_true(span_is(service_socket_name(&sockets, 1), ""));
    assert_true(span_is(service_socket_name(&sockets, 2), "admin"));
    assert_null(
        service_read_sockets(look_up, SET("LISTEN_PID", "42", "LISTEN_FDS", "16"), 42, &sockets));
    assert_int_equal(sockets.count, 16);
    assert_true(span_is(service_socket_name(&sockets, 15), ""));
}

static void those_for_another_are_not(void **state)
{
    (void)state;
    struct service_sockets sockets = {.count = 9};
    assert_null(
        service_read_sockets(look_up, SET("LISTEN_PID", "41", "LISTEN_FDS", "1"), 42, &sockets));
    assert_int_equal(sockets.count, 0);
    assert_null(service_read_sockets(look_up, SET("LISTEN_FDS", "1"), 42, &sockets));
    assert_int_equal(sockets.count, 0);
    assert_null(service_read_sockets(look_up, SET("LISTEN_PID", "42"), 42, &sockets));
    assert_int_equal(sockets.count, 0);
    /* Whatever else it says. */
    assert_null(
        service_read_sockets(look_up, SET("LISTEN_PID", "41", "LISTEN_FDS", "x"), 42, &sockets));
}

static void nonsense_is_refused(void **state)
{
    (void)state;
    struct service_sockets sockets;
    static const char *const pids[] = {"",     "x",          "42 ",        "-42",
                                       "0x2a", "4294967338", "2147483648", "18446744073709551658"};
    for (size_t i = 0; i < sizeof pids / sizeof *pids; i++) {
        assert_non_null(service_read_sockets(look_up, SET("LISTEN_PID", pids[i], "LISTEN_FDS", "1"),
                                             42, &sockets));
    }
    static const char *const counts[] = {"", "0", "17", "-1", "1x", "18446744073709551617"};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        assert_non_null(service_read_sockets(
            look_up, SET("LISTEN_PID", "42", "LISTEN_FDS", counts[i]), 42, &sockets));
        assert_int_equal(sockets.count, 0);
    }
    static const char *const names[] = {"", "a", "a:b:c", "::"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        assert_non_null(service_read_sockets(
            look_up, SET("LISTEN_PID", "42", "LISTEN_FDS", "2", "LISTEN_FDNAMES", names[i]), 42,
            &sockets));
    }
}

/* A socket that stands for the service manager's. */
static int receiver(struct service *service, const char *path)
{
    int descriptor = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_true(descriptor >= 0);
    assert_null(service_read(look_up, SET("NOTIFY_SOCKET", path), 42, service));
    assert_int_equal(bind(descriptor, (struct sockaddr *)&service->address, service->address_size),
                     0);
    return descriptor;
}

static void expect(int descriptor, const char *text)
{
    char got[64] = {0};
    assert_int_equal(recv(descriptor, got, sizeof got, MSG_DONTWAIT), strlen(text));
    assert_string_equal(got, text);
}

static void notices_arrive_at_paths_and_at_abstract_names(void **state)
{
    (void)state;
    char *directory = test_directory_make();
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    struct service service;
    assert_true(snprintf(path, sizeof path, "%s/notify", directory) < (int)sizeof path);
    int descriptor = receiver(&service, path);
    assert_int_equal(access(path, F_OK), 0);
    assert_true(service_tell(&service, "READY=1\n"));
    expect(descriptor, "READY=1\n");
    (void)close(descriptor);
    assert_false(service_tell(&service, "STOPPING=1\n")); /* Nobody is there. */
    (void)unlink(path);
    test_directory_remove(directory);

    (void)snprintf(path, sizeof path, "@hashtrie-test-%ld", (long)getpid());
    descriptor = receiver(&service, path);
    assert_true(service_tell(&service, "WATCHDOG=1\n"));
    expect(descriptor, "WATCHDOG=1\n");
    (void)close(descriptor);
}

static void nobody_is_told_where_nobody_asks(void **state)
{
    (void)state;
    struct service service;
    assert_null(service_read(look_up, SET("WATCHDOG_USEC", "1000000"), 42, &service));
    assert_int_equal(service.watchdog_ns, 0);
    assert_true(service_tell(&service, "READY=1\n"));
}

static void addresses_that_are_none(void **state)
{
    (void)state;
    struct service service;
    char longest[sizeof service.address.sun_path + 1];
    memset(longest, 'a', sizeof longest - 1);
    longest[0] = '/';
    longest[sizeof longest - 1] = '\0';
    const char *const paths[] = {"", "/", "@", "relative", "vsock:2:1", longest};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        assert_non_null(service_read(look_up, SET("NOTIFY_SOCKET", paths[i]), 42, &service));
        assert_int_equal(service.address_size, 0);
    }
    longest[sizeof longest - 2] = '\0';
    assert_null(service_read(look_up, SET("NOTIFY_SOCKET", longest), 42, &service));
}

static void the_watchdog_is_for_one_process(void **state)
{
    (void)state;
    struct service service;
    assert_null(service_read(
        look_up, SET("NOTIFY_SOCKET", "/x", "WATCHDOG_USEC", "3000000", "WATCHDOG_PID", "42"), 42,
        &service));
    assert_int_equal(service.watchdog_ns, 3000000000);
    assert_null(service_read(look_up, SET("NOTIFY_SOCKET", "/x", "WATCHDOG_USEC", "3000000"), 42,
                             &service));
    assert_int_equal(service.watchdog_ns, 3000000000);
    assert_null(service_read(
        look_up, SET("NOTIFY_SOCKET", "/x", "WATCHDOG_USEC", "3000000", "WATCHDOG_PID", "41"), 42,
        &service));
    assert_int_equal(service.watchdog_ns, 0);
    static const char *const intervals[] = {"", "x", "18446744073709551615"};
    for (size_t i = 0; i < sizeof intervals / sizeof *intervals; i++) {
        assert_non_null(service_read(
            look_up, SET("NOTIFY_SOCKET", "/x", "WATCHDOG_USEC", intervals[i]), 42, &service));
        assert_int_equal(service.watchdog_ns, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sockets_for_this_process_are_taken),
        cmocka_unit_test(those_for_another_are_not),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(notices_arrive_at_paths_and_at_abstract_names),
        cmocka_unit_test(nobody_is_told_where_nobody_asks),
        cmocka_unit_test(addresses_that_are_none),
        cmocka_unit_test(the_watchdog_is_for_one_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
