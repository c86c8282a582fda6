/* Values as text: whole numbers, sizes, durations, shares; and what an option accepts. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/check.h"
#include "config/options.h"

enum { DIGITS_MAX = 15, THOUSAND = 1000 };

struct unit {
    const char *name;
    uint64_t factor;
};

/* Largest first: writing takes the first that divides. Decimal ones are read, never written. */
static const struct unit size_units[] = {
    {"TiB", UINT64_C(1) << 40},
    {"GiB", UINT64_C(1) << 30},
    {"MiB", UINT64_C(1) << 20},
    {"KiB", UINT64_C(1) << 10},
    {"TB", UINT64_C(1000000000000)},
    {"GB", UINT64_C(1000000000)},
    {"MB", UINT64_C(1000000)},
    {"KB", UINT64_C(1000)},
    {"B", 1},
    {"", 1},
};
enum { SIZE_UNITS = sizeof size_units / sizeof size_units[0], SIZE_UNITS_WRITTEN = 4 };

static const struct unit duration_units[] = {
    {"d", UINT64_C(86400000000000)}, {"h", UINT64_C(3600000000000)}, {"m", UINT64_C(60000000000)},
    {"s", UINT64_C(1000000000)},     {"ms", UINT64_C(1000000)},      {"us", UINT64_C(1000)},
};
enum { DURATION_UNITS = sizeof duration_units / sizeof duration_units[0] };

/* Digits at *text as a number; moves *text behind them. */
static bool read_digits(const char **text, uint64_t *out)
{
    uint64_t value = 0;
    const char *at = *text;
    for (; *at >= '0' && *at <= '9'; at++) {
        uint64_t digit = (uint64_t)(*at - '0');
        if (value > (UINT64_MAX - digit) / 10) {
            return false;
        }
        value = value * 10 + digit;
    }
    bool any = at != *text;
    *text = at;
    *out = value;
    return any;
}

bool value_read_count(const char *text, uint64_t *out)
{
    return read_digits(&text, out) && *text == '\0';
}

/* A number with an optional fraction ("1.5") times a unit. */
static bool read_with_unit(const char *text, const struct unit *units, size_t unit_count,
                           uint64_t *out)
{
    uint64_t whole = 0;
    uint64_t fraction = 0;
    uint64_t scale = 1;
    if (!read_digits(&text, &whole)) {
        return false;
    }
    if (*text == '.') {
        const char *start = ++text;
        if (!read_digits(&text, &fraction) || text - start > DIGITS_MAX) {
            return false;
        }
        for (; start < text; start++) {
            scale *= 10;
        }
    }
    for (size_t i = 0; i < unit_count; i++) {
        if (strcasecmp(text, units[i].name) != 0) {
            continue;
        }
        if (whole > UINT64_MAX / units[i].factor) {
            return false;
        }
        uint64_t bytes = whole * units[i].factor;
        uint64_t part = (uint64_t)((double)fraction / (double)scale * (double)units[i].factor);
        if (bytes > UINT64_MAX - part) {
            return false;
        }
        *out = bytes + part;
        return true;
    }
    return false;
}

bool value_read_size(const char *text, uint64_t *out)
{
    return read_with_unit(text, size_units, SIZE_UNITS, out);
}

bool value_read_duration(const char *text, uint64_t *out)
{
    if (strcmp(text, "0") == 0) { /* The one duration that needs no unit. */
        *out = 0;
        return true;
    }
    return read_with_unit(text, duration_units, DURATION_UNITS, out);
}

bool value_read_decimal(const char *text, double *out)
{
    uint64_t whole = 0;
    uint64_t fraction = 0;
    double scale = 1;
    bool any = read_digits(&text, &whole);
    if (*text == '.') {
        const char *start = ++text;
        if (!read_digits(&text, &fraction) || text - start > DIGITS_MAX) {
            return false;
        }
        any = true;
        for (; start < text; start++) {
            scale *= 10;
        }
    }
    if (!any || *text != '\0') {
        return false;
    }
    *out = (double)whole + (double)fraction / scale;
    return true;
}

static bool write_with_unit(struct buf *out, uint64_t value, const struct unit *units,
                            size_t unit_count, const char *smallest)
{
    for (size_t i = 0; i < unit_count; i++) {
        if (value != 0 && value % units[i].factor == 0) {
            return buf_printf(out, "%" PRIu64 "%s", value / units[i].factor, units[i].name);
        }
    }
    return buf_printf(out, "%" PRIu64 "%s", value, smallest);
}

bool value_write_size(struct buf *out, uint64_t bytes)
{
    return write_with_unit(out, bytes, size_units, SIZE_UNITS_WRITTEN, "");
}

bool value_write_duration(struct buf *out, uint64_t nanoseconds)
{
    if (nanoseconds == 0) {
        return buf_append_text(out, "0s");
    }
    return write_with_unit(out, nanoseconds, duration_units, DURATION_UNITS, "ns");
}

static bool write_choices(const struct option *option, struct buf *out)
{
    bool done = buf_append_text(out, "one of ");
    for (size_t i = 0; i < OPTION_CHOICES_MAX && option->choices[i] != NULL; i++) {
        done = done && buf_printf(out, "%s%s", i == 0 ? "" : ", ", option->choices[i]);
    }
    return done;
}

bool option_write_range(const struct option *option, struct buf *out)
{
    bool done = true;
    switch (option->kind) {
    case OPTION_SWITCH:
        return buf_append_text(out, "no value");
    case OPTION_TEXT:
        return buf_append_text(out, "a text that is not empty");
    case OPTION_LIST:
        return buf_append_text(out, "a comma list");
    case OPTION_CHOICE:
        return write_choices(option, out);
    case OPTION_SHARE:
        return buf_printf(out, "a number from %g to %g", (double)option->min / THOUSAND,
                          (double)option->max / THOUSAND);
    case OPTION_COUNT:
        done = buf_printf(out, "a whole number from %" PRIu64 " to %" PRIu64, option->min,
                          option->max);
        if (option->multiple > 1) {
            done = done && buf_printf(out, ", a multiple of %" PRIu64, option->multiple);
        }
        break;
    case OPTION_SIZE:
        done = buf_append_text(out, "a size from ") && value_write_size(out, option->min) &&
               buf_append_text(out, " to ") && value_write_size(out, option->max);
        break;
    case OPTION_DURATION:
        done = buf_append_text(out, "a duration from ") && value_write_duration(out, option->min) &&
               buf_append_text(out, " to ") && value_write_duration(out, option->max);
        break;
    }
    return done && (!option->may_be_off || buf_append_text(out, ", or off"));
}

static void store_count(const struct option *option, uint64_t value, struct config *config)
{
    char *field = (char *)config + option->field;
    if (option->width == 0) {
        return;
    }
    if (option->width == sizeof(uint16_t)) {
        uint16_t narrow = (uint16_t)value;
        memcpy(field, &narrow, sizeof narrow);
    } else if (option->width == sizeof(uint32_t)) {
        uint32_t narrow = (uint32_t)value;
        memcpy(field, &narrow, sizeof narrow);
    } else {
        CHECK(option->width == sizeof value);
        memcpy(field, &value, sizeof value);
    }
}

static void store_pointer(const struct option *option, const char *text, struct config *config)
{
    if (option->width > 0) {
        memcpy((char *)config + option->field, &text, sizeof(const char *));
    }
}

static bool read_number(const struct option *option, const char *text, bool from_variable,
                        uint64_t *out)
{
    if (from_variable && option->variable_unit != 0) {
        double units = 0;
        if (!value_read_decimal(text, &units) ||
            units > (double)option->max / (double)option->variable_unit) {
            return false;
        }
        *out = (uint64_t)(units * (double)option->variable_unit);
        return true;
    }
    if (option->bare_unit != 0 && value_read_count(text, out)) {
        if (*out > option->max / option->bare_unit) {
            return false;
        }
        *out *= option->bare_unit;
        return true;
    }
    if (option->kind == OPTION_SIZE) {
        return value_read_size(text, out);
    }
    return option->kind == OPTION_COUNT ? value_read_count(text, out)
                                        : value_read_duration(text, out);
}

static bool store_number(const struct option *option, const char *text, bool from_variable,
                         struct config *config)
{
    uint64_t value = 0;
    bool off = option->may_be_off && strcmp(text, "off") == 0;
    if (!off) {
        if (!read_number(option, text, from_variable, &value)) {
            return false;
        }
        off = option->may_be_off && value == 0;
    }
    if (!off) {
        bool fits = value >= option->min && value <= option->max &&
                    (option->multiple <= 1 || value % option->multiple == 0);
        if (!fits) {
            return false;
        }
    }
    store_count(option, value, config);
    return true;
}

static void store_switch(const struct option *option, const char *text, struct config *config)
{
    bool on = strcmp(text, SWITCH_ON) == 0;
    if (option->width > 0) {
        memcpy((char *)config + option->field, &on, sizeof on);
    }
}

static bool store_share(const struct option *option, const char *text, struct config *config)
{
    double value = 0;
    if (!value_read_decimal(text, &value)) {
        return false;
    }
    if (value * THOUSAND < (double)option->min || value * THOUSAND > (double)option->max) {
        return false;
    }
    memcpy((char *)config + option->field, &value, sizeof value);
    return true;
}

static bool store_choice(const struct option *option, const char *text, struct config *config)
{
    for (size_t i = 0; i < OPTION_CHOICES_MAX && option->choices[i] != NULL; i++) {
        if (strcmp(text, option->choices[i]) == 0) {
            store_pointer(option, option->choices[i], config);
            return true;
        }
    }
    return false;
}

bool option_store(const struct option *option, const char *text, bool from_variable,
                  struct config *config)
{
    switch (option->kind) {
    case OPTION_SWITCH:
        store_switch(option, text, config);
        return true;
    case OPTION_LIST:
        return true; /* Read elsewhere. */
    case OPTION_TEXT:
        if (strlen(text) > CONFIG_TEXT_BYTES_MAX) {
            return false;
        }
        if (*text == '\0') {
            return option->may_be_empty; /* The field stays NULL. */
        }
        store_pointer(option, text, config);
        return true;
    case OPTION_CHOICE:
        return store_choice(option, text, config);
    case OPTION_SHARE:
        return store_share(option, text, config);
    case OPTION_COUNT:
    case OPTION_SIZE:
    case OPTION_DURATION:
        return store_number(option, text, from_variable, config);
    }
    return false;
}
