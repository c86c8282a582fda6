/*
 * Any JSON value in a form that depends on its meaning alone: keys sorted by their bytes, the last
 * of equal ones kept (but for objects of more than SORT_MAX members, which stay as they came), no
 * white space, strings in their usual form (see json.h), numbers as they came.
 *
 *     object  0xff '{'  { 0xff 'k' key  value }  0xff '}'        true   0xff 't'
 *     array   0xff '['  { value }                0xff ']'        false  0xff 'f'
 *     string  0xff 's' text                                      null   0xff 'z'
 *     number  0xff 'n' text
 *
 * No recursion: open containers are frames of the reader, JSON_DEPTH_MAX at most as the parser has
 * checked; members of open objects are a stack, too.
 */
#include <endian.h>

#include "prompt/internal.h"

enum { INSERTION_SORT_MAX = 12, SORT_MAX = 1024 };

static struct span member_key(const struct prompt_reader *reader, const struct member *member)
{
    bool rewritten = (member->size & MEMBER_REWRITTEN) != 0;
    const char *base = rewritten ? reader->rewritten.data : reader->body;
    return (struct span){.data = base + member->at, .size = member->size & ~MEMBER_REWRITTEN};
}

static bool keys_equal(const struct prompt_reader *reader, const struct member *a,
                       const struct member *b)
{
    return a->order == b->order && span_equal(member_key(reader, a), member_key(reader, b));
}

/* By key, then by place. */
static inline bool member_less(const struct prompt_reader *reader, const struct member *a,
                               const struct member *b)
{
    if (a->order != b->order) {
        return a->order < b->order;
    }
    struct span x = member_key(reader, a);
    struct span y = member_key(reader, b);
    size_t common = x.size < y.size ? x.size : y.size;
    int order = common == 0 ? 0 : memcmp(x.data, y.data, common);
    if (order == 0 && x.size == y.size) {
        return a->value < b->value;
    }
    return order != 0 ? order < 0 : x.size < y.size;
}

static void sort_few(const struct prompt_reader *reader, struct member *members, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        struct member member = members[i];
        size_t at = i;
        while (at > 0 && member_less(reader, &member, &members[at - 1])) {
            members[at] = members[at - 1];
            at--;
        }
        members[at] = member;
    }
}

static void sift_down(const struct prompt_reader *reader, struct member *heap, size_t at,
                      size_t count)
{
    struct member member = heap[at];
    for (size_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && member_less(reader, &heap[child], &heap[child + 1])) {
            child++;
        }
        if (!member_less(reader, &member, &heap[child])) {
            break;
        }
        heap[at] = heap[child];
    }
    heap[at] = member;
}

static bool is_sorted(const struct prompt_reader *reader, const struct member *members,
                      size_t count)
{
    for (size_t i = 1; i < count; i++) {
        if (member_less(reader, &members[i], &members[i - 1])) {
            return false;
        }
    }
    return true;
}

/* Heap sort: no input makes it quadratic, and it needs no memory. */
static void sort_many(const struct prompt_reader *reader, struct member *members, size_t count)
{
    if (is_sorted(reader, members, count)) {
        return; /* Clients that sort, and floods of one key. */
    }
    for (size_t i = count / 2; i-- > 0;) {
        sift_down(reader, members, i, count);
    }
    for (size_t last = count - 1; last > 0; last--) {
        struct member most = members[0];
        members[0] = members[last];
        members[last] = most;
        sift_down(reader, members, 0, last);
    }
}

static struct member *members_of(struct prompt_reader *reader)
{
    return (struct member *)(void *)reader->members.data;
}

/* Shorter keys are filled up with zeros, which no key in its usual form has. `readable` bytes, at
 * least `size`, may be read. */
static inline uint64_t key_order(const char *key, size_t size, size_t readable)
{
    uint64_t order = 0;
    if (readable < sizeof order) {
        memcpy(&order, key, size);
        return be64toh(order);
    }
    memcpy(&order, key, sizeof order);
    order = be64toh(order);
    if (size < sizeof order) {
        order = order >> 1 >> (63 - 8 * size) << 1 << (63 - 8 * size);
    }
    return order;
}

/* A key that is not in its usual form is rewritten behind the others. */
static bool rewrite_key(struct prompt_reader *reader, struct span text, struct member *member)
{
    struct buf *out = &reader->rewritten;
    if (!buf_reserve(out, text.size + JSON_USUAL_MIN)) {
        return false;
    }
    char *start = out->data + out->size;
    size_t size = json_to_usual(&text, start, out->capacity - out->size);
    CHECK(text.size == 0);
    member->order = key_order(start, size, out->capacity - out->size);
    member->at = (uint32_t)out->size;
    member->size = (uint32_t)size | MEMBER_REWRITTEN;
    out->size += size;
    return true;
}

static bool push_member(struct prompt_reader *reader, struct json_value key,
                        struct json_value value)
{
    struct buf *members = &reader->members;
    if (members->capacity - members->size < sizeof(struct member) &&
        !buf_reserve(members, sizeof(struct member))) {
        return false;
    }
    struct span text = json_text(reader->json, key);
    struct member *member = (struct member *)(void *)(members->data + members->size);
    member->value = value.token;
    if (json_is_usual(reader->json, key)) {
        member->at = (uint32_t)(text.data - reader->body);
        member->size = (uint32_t)text.size;
        member->order = key_order(text.data, text.size, reader->body_size - member->at);
    } else if (!rewrite_key(reader, text, member)) {
        return false;
    }
    members->size += sizeof *member;
    return true;
}

static void drop_members(struct prompt_reader *reader, const struct frame *frame)
{
    reader->members.size = frame->first * sizeof(struct member);
    reader->rewritten.size = frame->rewritten_size;
}

/* The members of an object, sorted, on top of the stack; none where there are too many. */
static bool collect(struct prompt_reader *reader, struct json_value object, const char *skip,
                    struct frame *frame)
{
    *frame = (struct frame){.object = true,
                            .sorted = true,
                            .cursor = json_first(reader->json, object),
                            .first = reader->members.size / sizeof(struct member),
                            .rewritten_size = reader->rewritten.size};
    struct json_cursor cursor = frame->cursor;
    struct json_value key;
    struct json_value value;
    size_t count = 0;
    while (json_next_member(reader->json, &cursor, &key, &value)) {
        bool skipped = skip != NULL && json_is_text(reader->json, key, skip);
        if (!skipped && !push_member(reader, key, value)) {
            return false;
        }
        count += !skipped;
        if (count > SORT_MAX) {
            drop_members(reader, frame);
            frame->sorted = false;
            return true;
        }
    }
    frame->next = frame->first;
    frame->end = frame->first + count;
    if (count > 1) {
        struct member *members = members_of(reader) + frame->first;
        (count <= INSERTION_SORT_MAX ? sort_few : sort_many)(reader, members, count);
    }
    return true;
}

/* Writes a scalar, or opens a container as *frame. True: opened. */
static bool begin_value(struct emit *emit, struct json_value value, const char *skip,
                        struct frame *frame)
{
    const struct json_parser *json = emit->reader->json;
    switch (json_kind(json, value)) {
    case JSON_OBJECT:
        prompt_emit_tag(emit, '{');
        if (!collect(emit->reader, value, skip, frame)) {
            prompt_emit_fail(emit);
        }
        return true;
    case JSON_ARRAY:
        prompt_emit_tag(emit, '[');
        *frame = (struct frame){.cursor = json_first(json, value)};
        return true;
    case JSON_STRING:
        prompt_emit_tag(emit, 's');
        prompt_emit_string(emit, value);
        return false;
    case JSON_NUMBER: {
        struct span text = json_text(json, value);
        prompt_emit_tag(emit, 'n');
        prompt_emit_bytes(emit, text.data, text.size);
        return false;
    }
    case JSON_TRUE:
        prompt_emit_tag(emit, 't');
        return false;
    case JSON_FALSE:
        prompt_emit_tag(emit, 'f');
        return false;
    case JSON_NULL:
    case JSON_ABSENT:
        break;
    }
    prompt_emit_tag(emit, 'z');
    return false;
}

static bool next_as_it_came(struct emit *emit, struct frame *frame, struct json_value *value)
{
    struct json_value key;
    if (!json_next_member(emit->reader->json, &frame->cursor, &key, value)) {
        return false;
    }
    prompt_emit_tag(emit, 'k');
    prompt_emit_string(emit, key);
    return true;
}

/* The next value inside a container, its key written before it. False: no more. */
static bool next_value(struct emit *emit, struct frame *frame, struct json_value *value)
{
    struct prompt_reader *reader = emit->reader;
    if (!frame->object) {
        return json_next_element(reader->json, &frame->cursor, value);
    }
    if (!frame->sorted) {
        return next_as_it_came(emit, frame, value);
    }
    if (frame->next == frame->end) {
        return false;
    }
    const struct member *member = members_of(reader) + frame->next++;
    while (frame->next < frame->end && keys_equal(reader, member, member + 1)) {
        member++; /* The last of equal keys. */
        frame->next++;
    }
    struct span key = member_key(reader, member);
    prompt_emit_tag(emit, 'k');
    prompt_emit_bytes(emit, key.data, key.size);
    value->token = member->value;
    return true;
}

static void end_container(struct emit *emit, const struct frame *frame)
{
    prompt_emit_tag(emit, frame->object ? '}' : ']');
    if (frame->object) {
        drop_members(emit->reader, frame);
    }
}

void prompt_emit_canonical(struct emit *emit, struct json_value value, const char *skip)
{
    struct frame *frames = emit->reader->frames;
    size_t depth = begin_value(emit, value, skip, &frames[0]);
    while (depth > 0 && !emit->closed) {
        struct json_value inner;
        if (!next_value(emit, &frames[depth - 1], &inner)) {
            end_container(emit, &frames[--depth]);
            continue;
        }
        CHECK(depth < JSON_DEPTH_MAX); /* Around all this is the body's own object. */
        depth += begin_value(emit, inner, NULL, &frames[depth]);
    }
}
