/* `traceparent` both ways. */
#include "support/test.h"
#include "trace/trace.h"

#define PARENT "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

static struct random random = {.state = 1};

static void goes_on_with_the_client_s_trace(void **state)
{
    (void)state;
    struct trace_context context;
    trace_begin(&context, span_of(PARENT), &random);
    assert_true(context.trace[0] == UINT64_C(0x4bf92f3577b34da6));
    assert_true(context.trace[1] == UINT64_C(0xa3ce929d0e0e4736));
    assert_true(context.parent == UINT64_C(0x00f067aa0ba902b7));
    assert_true(context.sampled);
    char out[TRACE_PARENT_BYTES];
    trace_write_parent(&context, out);
    assert_memory_equal(out, PARENT, 36);
    assert_memory_equal(out + 52, "-01", 3);
    struct trace_context next;
    trace_begin(&next, (struct span){.data = out, .size = sizeof out}, &random);
    assert_true(next.parent == context.span && next.span != context.span);
}

static void what_the_client_does_not_sample_is_not_sampled(void **state)
{
    (void)state;
    struct trace_context context;
    char out[TRACE_PARENT_BYTES];
    trace_begin(&context, span_of("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-fe"),
                &random);
    assert_false(context.sampled);
    trace_write_parent(&context, out);
    assert_memory_equal(out + 52, "-00", 3);
}

static void a_later_version_may_be_longer(void **state)
{
    (void)state;
    struct trace_context context;
    trace_begin(&context, span_of("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more"),
                &random);
    assert_true(context.parent == UINT64_C(0x00f067aa0ba902b7));
}

static void anything_else_begins_a_trace(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "00",
        PARENT "-more",
        PARENT "0",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "0x-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
        "00-4bf92f3577b34da6a3ce929d0e0e4736 00f067aa0ba902b7-01",
        "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7_01",
        "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
        "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct trace_context context;
        trace_begin(&context, span_of(bad[i]), &random);
        assert_true(context.parent == 0 && context.sampled && context.span != 0);
        assert_true((context.trace[0] | context.trace[1]) != 0);
        assert_true(context.trace[0] != UINT64_C(0x4bf92f3577b34da6));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goes_on_with_the_client_s_trace),
        cmocka_unit_test(what_the_client_does_not_sample_is_not_sampled),
        cmocka_unit_test(a_later_version_may_be_longer),
        cmocka_unit_test(anything_else_begins_a_trace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
