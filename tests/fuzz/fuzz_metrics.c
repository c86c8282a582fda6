/*
 * An engine's metrics from any bytes. However they are cut into pieces (byte 0), the same samples
 * are read from them, and no figure is absurd.
 */
#include <math.h>
#include <string.h>

#include "base/buf.h"
#include "base/check.h"
#include "discovery/figures.h"
#include "fuzz/fuzz.h"

struct reading {
    struct figures figures;
    struct buf text; /* All samples, for comparison. */
};

static void on_sample(void *user, const struct exposition_sample *sample)
{
    struct reading *reading = user;
    figures_add(&reading->figures, sample);
    REQUIRE(sample->name.size > 0 && sample->label_count <= EXPOSITION_LABELS_MAX);
    REQUIRE(buf_append(&reading->text, sample->name.data, sample->name.size));
    REQUIRE(buf_append(&reading->text, &sample->value, sizeof sample->value));
    for (size_t i = 0; i < sample->label_count; i++) {
        struct span name = sample->labels[i].name;
        struct span value = sample->labels[i].value;
        REQUIRE(buf_append(&reading->text, name.data, name.size));
        REQUIRE(value.size == 0 || buf_append(&reading->text, value.data, value.size));
    }
}

static void read_all(struct mem *mem, struct fuzz_input bytes, size_t step, struct reading *out)
{
    struct exposition reader;
    *out = (struct reading){0};
    buf_init(&out->text, mem, SIZE_MAX);
    exposition_init(&reader, mem, on_sample, out);
    for (size_t at = 0; at < bytes.size; at += step) {
        size_t left = bytes.size - at;
        exposition_feed(&reader, (const char *)bytes.data + at, left < step ? left : step);
    }
    REQUIRE(buf_printf(&out->text, "%llu %llu", (unsigned long long)reader.sample_count,
                       (unsigned long long)reader.bad_line_count));
    exposition_fini(&reader);
}

static void check_figure(double figure, double min, double max)
{
    REQUIRE(isnan(figure) || (figure >= min && figure <= max));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mem mem;
    struct reading whole;
    struct reading pieces;
    struct fuzz_input input = {.data = data, .size = size};
    size_t step = fuzz_take(&input) + (size_t)1;
    mem_init(&mem, SIZE_MAX);
    read_all(&mem, input, SIZE_MAX / 2, &whole);
    read_all(&mem, input, step, &pieces);
    REQUIRE(whole.text.size == pieces.text.size);
    REQUIRE(memcmp(whole.text.data, pieces.text.data, whole.text.size) == 0);
    struct discovery_figures figures = figures_result(&whole.figures);
    check_figure(figures.start_time_s, 1, 1e11);
    check_figure(figures.kv_capacity_tokens, 1, 1e12);
    check_figure(figures.kv_usage, 0, 1);
    check_figure(figures.running, 0, INFINITY);
    check_figure(figures.prompt_tokens, 0, INFINITY);
    buf_fini(&whole.text);
    buf_fini(&pieces.text);
    mem_fini(&mem);
    return 0;
}
