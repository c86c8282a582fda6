#include "store/filter.h"

#include "base/check.h"
#include "base/random.h"

enum { WORD_BITS = 64 };

bool filter_init(struct filter *filter, struct mem *mem, uint64_t rows, size_t bytes_max)
{
    REQUIRE(bytes_max >= sizeof(uint64_t) && bytes_max <= UINT32_MAX / 8);
    uint64_t capacity = rows + rows / 2;
    capacity = capacity < FILTER_ROWS_MIN ? FILTER_ROWS_MIN : capacity;
    uint64_t rows_max = (uint64_t)bytes_max * 8 / FILTER_BITS_PER_ROW;
    uint64_t sized_for = capacity < rows_max ? capacity : rows_max;
    size_t word_count = (size_t)(sized_for * FILTER_BITS_PER_ROW / WORD_BITS);
    _Atomic uint64_t *words = mem_alloc_zero(mem, word_count * sizeof *words);
    if (words == NULL) {
        return false;
    }
    *filter = (struct filter){.words = words, .word_count = word_count, .capacity = capacity};
    return true;
}

void filter_fini(struct filter *filter, struct mem *mem)
{
    mem_free(mem, filter->words, filter_bytes(filter));
    *filter = (struct filter){0};
}

/* Two independent hashes give all probes (Kirsch and Mitzenmacher). */
struct probes {
    uint64_t at;
    uint64_t step;
};

static struct probes probes_of(uint64_t prefix, uint32_t fp)
{
    struct random mixer = {.state = prefix ^ ((uint64_t)fp << 32 | fp)};
    uint64_t at = random_next(&mixer);
    return (struct probes){.at = at, .step = random_next(&mixer) | 1};
}

/* The next bit: multiply-shift of the upper half onto the bits there are. */
static uint64_t next_bit(struct probes *probes, size_t word_count)
{
    uint64_t bits = (uint64_t)word_count * WORD_BITS;
    uint64_t bit = ((probes->at >> 32) * bits) >> 32;
    probes->at += probes->step;
    return bit;
}

void filter_add(struct filter *filter, uint64_t prefix, uint32_t fp)
{
    if (filter->words == NULL) {
        return;
    }
    struct probes probes = probes_of(prefix, fp);
    for (int i = 0; i < FILTER_PROBES; i++) {
        uint64_t bit = next_bit(&probes, filter->word_count);
        (void)atomic_fetch_or_explicit(&filter->words[bit / WORD_BITS],
                                       UINT64_C(1) << (bit % WORD_BITS), memory_order_relaxed);
    }
}

bool filter_may_have(const struct filter *filter, uint64_t prefix, uint32_t fp)
{
    if (filter->words == NULL) {
        return true;
    }
    struct probes probes = probes_of(prefix, fp);
    for (int i = 0; i < FILTER_PROBES; i++) {
        uint64_t bit = next_bit(&probes, filter->word_count);
        uint64_t word = atomic_load_explicit(&filter->words[bit / WORD_BITS], memory_order_relaxed);
        if ((word >> (bit % WORD_BITS) & 1) == 0) {
            return false;
        }
    }
    return true;
}
