#include "dump/dump.h"

static const struct {
    const char *name;
    uint64_t below_s;
} classes[DUMP_AGE_CLASSES] = {
    {"1m", 60}, {"10m", 600}, {"1h", 3600}, {"6h", 21600}, {"1d", 86400}, {"older", UINT64_MAX},
};

const char *dump_age_name(size_t class)
{
    return classes[class].name;
}

void dump_ages_add(struct dump_ages *ages, uint64_t now_s, uint64_t then_s)
{
    uint64_t age = now_s > then_s ? now_s - then_s : 0;
    size_t class = 0;
    while (class + 1 < DUMP_AGE_CLASSES && age >= classes[class].below_s) {
        class ++;
    }
    ages->count[class]++;
}

void dump_json_ages(struct dump *dump, const char *key, const struct dump_ages *ages)
{
    json_write_key(&dump->json, key);
    json_write_object(&dump->json);
    for (size_t i = 0; i < DUMP_AGE_CLASSES; i++) {
        dump_json_number(dump, classes[i].name, ages->count[i]);
    }
    json_write_end(&dump->json);
}
