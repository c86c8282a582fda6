#include "config/machine.h"
#include "support/test.h"

#define GIB (UINT64_C(1) << 30)

static char *root;

static int set_up(void **state)
{
    (void)state;
    root = test_directory_make();
    test_file_write_text(root, "proc/meminfo", "MemFree: 1 kB\nMemTotal:        8388608 kB\n");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    test_directory_remove(root);
    return 0;
}

static void physical_memory_is_the_fallback(void **state)
{
    (void)state;
    assert_int_equal(machine_memory_limit(root), 8 * GIB);
    test_file_write_text(root, "proc/meminfo", "nonsense");
    assert_int_equal(machine_memory_limit(root), 0);
}

static void v2_takes_the_least_level(void **state)
{
    (void)state;
    test_file_write_text(root, "proc/self/cgroup", "0::/kubepods/pod1/box\n");
    test_file_write_text(root, "sys/fs/cgroup/kubepods/pod1/box/memory.max", "max\n");
    assert_int_equal(machine_memory_limit(root), 8 * GIB);
    test_file_write_text(root, "sys/fs/cgroup/kubepods/pod1/memory.max", "1073741824\n");
    assert_int_equal(machine_memory_limit(root), GIB);
    test_file_write_text(root, "sys/fs/cgroup/kubepods/pod1/box/memory.max", "2147483648\n");
    assert_int_equal(machine_memory_limit(root), GIB);
    test_file_write_text(root, "sys/fs/cgroup/kubepods/pod1/box/memory.max", "536870912\n");
    assert_int_equal(machine_memory_limit(root), GIB / 2);
}

static void v2_in_a_namespace_has_its_limit_at_the_root(void **state)
{
    (void)state;
    test_file_write_text(root, "proc/self/cgroup", "0::/\n");
    test_file_write_text(root, "sys/fs/cgroup/memory.max", "1073741824\n");
    assert_int_equal(machine_memory_limit(root), GIB);
}

static void v1_without_a_namespace_names_a_path_of_the_host(void **state)
{
    (void)state;
    test_file_write_text(root, "proc/self/cgroup",
                         "11:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/docker/abc\n");
    test_file_write_text(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n");
    test_file_write_text(root, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "150000\n");
    test_file_write_text(root, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    assert_int_equal(machine_memory_limit(root), GIB);
    assert_int_equal(machine_cpu_limit(root, 8), 2);
    assert_int_equal(machine_cpu_limit(root, 1), 1);
}

static void v1_without_a_limit_says_a_huge_number(void **state)
{
    (void)state;
    test_file_write_text(root, "proc/self/cgroup", "11:memory:/\n4:cpu,cpuacct:/\n");
    test_file_write_text(root, "sys/fs/cgroup/memory/memory.limit_in_bytes",
                         "9223372036854771712\n");
    test_file_write_text(root, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    test_file_write_text(root, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    assert_int_equal(machine_memory_limit(root), 8 * GIB);
    assert_int_equal(machine_cpu_limit(root, 8), 8);
}

static void v2_quota_is_rounded_up_and_the_least_counts(void **state)
{
    (void)state;
    test_file_write_text(root, "proc/self/cgroup", "0::/a/b\n");
    test_file_write_text(root, "sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    assert_int_equal(machine_cpu_limit(root, 64), 64);
    test_file_write_text(root, "sys/fs/cgroup/a/cpu.max", "250000 100000\n");
    assert_int_equal(machine_cpu_limit(root, 64), 3);
    test_file_write_text(root, "sys/fs/cgroup/a/b/cpu.max", "40000 100000\n");
    assert_int_equal(machine_cpu_limit(root, 64), 1);
}

static void nonsense_is_ignored(void **state)
{
    (void)state;
    test_file_write_text(root, "proc/self/cgroup", "::\n0::/../../etc\nxx\n:memory\n");
    test_file_write_text(root, "sys/fs/cgroup/memory.max", "-5\n");
    test_file_write_text(root, "sys/fs/cgroup/cpu.max", "0 0\n");
    assert_int_equal(machine_memory_limit(root), 8 * GIB);
    assert_int_equal(machine_cpu_limit(root, 5), 5);
    assert_true(machine_cpu_affinity() >= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(physical_memory_is_the_fallback, set_up, tear_down),
        cmocka_unit_test_setup_teardown(v2_takes_the_least_level, set_up, tear_down),
        cmocka_unit_test_setup_teardown(v2_in_a_namespace_has_its_limit_at_the_root, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(v1_without_a_namespace_names_a_path_of_the_host, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(v1_without_a_limit_says_a_huge_number, set_up, tear_down),
        cmocka_unit_test_setup_teardown(v2_quota_is_rounded_up_and_the_least_counts, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(nonsense_is_ignored, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
