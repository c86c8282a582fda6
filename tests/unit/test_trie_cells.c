/* The trie's memory: whatever is given back can be taken again as anything else, and is counted. */
#include <string.h>

#include "base/random.h"
#include "support/test.h"
#include "trie/internal.h"

enum { CELLS = 4096, WORDS_MAX = TRIE_RUN_LENGTH_MAX };

struct fixture {
    struct mem mem;
    struct cells cells;
};

static void setup(struct fixture *fixture)
{
    mem_init(&fixture->mem, SIZE_MAX);
    assert_true(cells_init(&fixture->cells, CELLS * CELL_BYTES));
}

static void teardown(struct fixture *fixture)
{
    cells_fini(&fixture->cells, &fixture->mem);
    mem_fini(&fixture->mem);
}

static void every_cell_can_be_taken_once(void **state)
{
    (void)state;
    struct fixture fixture;
    setup(&fixture);
    static bool seen[CELLS];
    memset(seen, 0, sizeof seen);
    for (int round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < CELLS; i++) {
            uint32_t index = cells_take(&fixture.cells, &fixture.mem);
            assert_true(index < CELLS && !seen[index]);
            seen[index] = true;
            memset(&fixture.cells.base[index], 0xff, CELL_BYTES);
        }
        assert_int_equal(cells_take(&fixture.cells, &fixture.mem), NODE_NONE);
        assert_int_equal(cells_take_half(&fixture.cells, &fixture.mem), NODE_NONE);
        assert_int_equal(cells_used_bytes(&fixture.cells), CELLS * CELL_BYTES);
        for (uint32_t i = 0; i < CELLS; i++) {
            uint32_t index = round % 2 == 0 ? i : i * 1103 % CELLS; /* 1103 is odd: all of them. */
            cells_give(&fixture.cells, index);
            seen[index] = false;
        }
        assert_int_equal(cells_recount_free(&fixture.cells), CELLS);
    }
    assert_int_equal(fixture.mem.bytes_used, CELLS * CELL_BYTES + 4096); /* And the node map. */
    teardown(&fixture);
}

static void two_free_halves_are_a_cell(void **state)
{
    (void)state;
    struct fixture fixture;
    setup(&fixture);
    static uint32_t halves[2 * CELLS];
    for (uint32_t i = 0; i < 2 * CELLS; i++) {
        halves[i] = cells_take_half(&fixture.cells, &fixture.mem);
        assert_true(halves[i] < 2 * CELLS);
        memset(half_words(&fixture.cells, halves[i]), 0xff, HALF_WORDS * 4);
    }
    assert_int_equal(cells_take_half(&fixture.cells, &fixture.mem), NODE_NONE);
    for (uint32_t i = 0; i < 2 * CELLS; i += 2) {
        cells_give_half(&fixture.cells, halves[i]);
    }
    assert_int_equal(cells_take(&fixture.cells, &fixture.mem), NODE_NONE);
    assert_int_equal(cells_spare_bytes(&fixture.cells), CELLS * HALF_BYTES);
    for (uint32_t i = 1; i < 2 * CELLS; i += 2) {
        cells_give_half(&fixture.cells, halves[i]);
    }
    assert_int_equal(cells_recount_free(&fixture.cells), CELLS);
    assert_int_equal(cells_used_bytes(&fixture.cells), 0);
    teardown(&fixture);
}

static void memory_is_charged_by_the_page_and_refused_past_the_limit(void **state)
{
    (void)state;
    struct fixture fixture;
    setup(&fixture);
    fixture.mem.bytes_limit = 3 * 4096; /* One page of the node map, two of cells. */
    for (int i = 0; i < 2 * 4096 / CELL_BYTES; i++) {
        assert_true(cells_take(&fixture.cells, &fixture.mem) != NODE_NONE);
        assert_int_equal(fixture.mem.bytes_used, cells_bytes(&fixture.cells));
    }
    assert_int_equal(cells_take(&fixture.cells, &fixture.mem), NODE_NONE);
    cells_give(&fixture.cells, 7);
    assert_int_equal(cells_take(&fixture.cells, &fixture.mem), 7);
    teardown(&fixture);
}

static struct hashtrie *new_trie(void)
{
    struct hashtrie_options options = hashtrie_options_default(HASHTRIE_BUDGET_MIN);
    struct hashtrie *trie = NULL;
    assert_int_equal(hashtrie_new(&options, &trie), HASHTRIE_OK);
    return trie;
}

/* Writes every word of a block, reads it back, and gives the same bytes back as were taken. */
static void blocks_of_every_size_hold_their_words(void **state)
{
    (void)state;
    struct hashtrie *trie = new_trie();
    struct cells *cells = &trie->cells;
    size_t before = cells_used_bytes(cells);
    for (uint32_t words = 0; words <= WORDS_MAX; words++) {
        uint32_t block = NODE_NONE;
        assert_true(block_take(trie, words, &block));
        assert_int_equal(cells_used_bytes(cells) - before, block_bytes(words));
        assert_true(words < 30 || block_bytes(words) <= words * 4 * 5 / 4 + CELL_BYTES);
        uint32_t number = 0;
        struct block_piece piece = block_first(cells, block, words);
        for (; piece.count > 0; block_next(cells, &piece)) {
            for (uint32_t i = 0; i < piece.count; i++) {
                piece.words[i] = ++number ^ 0xfffffff0U;
            }
        }
        assert_int_equal(number, words);
        number = 0;
        for (piece = block_first(cells, block, words); piece.count > 0; block_next(cells, &piece)) {
            for (uint32_t i = 0; i < piece.count; i++) {
                assert_int_equal(piece.words[i], ++number ^ 0xfffffff0U);
            }
        }
        block_give(cells, block, words);
        assert_int_equal(cells_used_bytes(cells), before);
        assert_int_equal(cells_recount_free(cells), cells->free_count);
    }
    hashtrie_free(trie);
}

/* Short prompts fill the budget, then long ones come, then short ones again: what was one can
 * become the other, and the process's memory does not grow. */
static void a_workload_that_changes_stays_within_the_budget(void **state)
{
    (void)state;
    struct hashtrie *trie = new_trie();
    hashtrie_endpoint endpoint = 0;
    assert_int_equal(hashtrie_endpoint_add(trie, "http://a", "m", &endpoint), HASHTRIE_OK);
    struct random random = {.state = test_seed()};
    static uint64_t hashes[2000];
    static const size_t lengths[] = {1, 3, 700, 12, 2000, 4};
    for (size_t phase = 0; phase < sizeof lengths / sizeof *lengths; phase++) {
        for (int i = 0; i < 20000; i++) {
            struct hashtrie_key key = {.namespace_hash = 1, .hashes = hashes};
            key.count = 1 + random_below(&random, (uint32_t)lengths[phase]);
            for (size_t j = 0; j < key.count; j++) {
                hashes[j] = random_next(&random);
            }
            assert_int_equal(hashtrie_insert(trie, &key, endpoint, 1), HASHTRIE_OK);
            assert_true(trie->mem.bytes_used <= HASHTRIE_BUDGET_MIN);
        }
        const char *breach = NULL;
        assert_int_equal(hashtrie_check(trie, &breach), HASHTRIE_OK);
        struct hashtrie_stats stats;
        hashtrie_get_stats(trie, &stats);
        assert_true(stats.bytes_used >= HASHTRIE_BUDGET_MIN * 2 / 5); /* Target: half. */
    }
    hashtrie_free(trie);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cell_can_be_taken_once),
        cmocka_unit_test(two_free_halves_are_a_cell),
        cmocka_unit_test(memory_is_charged_by_the_page_and_refused_past_the_limit),
        cmocka_unit_test(blocks_of_every_size_hold_their_words),
        cmocka_unit_test(a_workload_that_changes_stays_within_the_budget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
