/* HTTP messages as a client or an engine reads them; shares nothing with src/http. */
#ifndef HASHTRIE_TESTS_SIM_MESSAGE_H
#define HASHTRIE_TESTS_SIM_MESSAGE_H

#include "sim/world.h"

enum sim_part {
    SIM_IN_HEAD,
    SIM_IN_LENGTH,
    SIM_IN_CHUNK_SIZE,
    SIM_IN_CHUNK,
    SIM_IN_CHUNK_END,
    SIM_IN_TRAILER,
    SIM_IN_REST, /* Until the connection ends. */
    SIM_WHOLE,
    SIM_BROKEN,
};

struct sim_message {
    enum sim_part part;
    bool to_head;       /* Set by the reader before: no body whatever the head says. */
    bool is_request;    /* The same. */
    struct buf head;    /* Up to and with the empty line. */
    struct buf body;    /* Decoded. */
    struct buf line;    /* Of a chunk's size, of trailers. */
    struct buf trailer; /* All lines, the empty one included. */
    uint64_t left;      /* Of the length, or of the chunk. */
    unsigned status;
    bool until_end; /* The body ends with the connection. */
    bool close;     /* "Connection: close", or HTTP/1.0 without keep-alive. */
};

void sim_message_init(struct sim_message *message, bool is_request);
void sim_message_fini(struct sim_message *message);
void sim_message_reset(struct sim_message *message, bool to_head);
/* Returns what belongs to the message. Stops when it is whole or broken. */
size_t sim_message_read(struct sim_message *message, const char *bytes, size_t size);
static inline bool sim_message_has_head(const struct sim_message *message)
{
    return message->part != SIM_IN_HEAD && message->part != SIM_BROKEN;
}
/* The first header of that name; data is NULL if there is none. */
struct span sim_message_header(const struct sim_message *message, const char *name);
/* Its value as a number; `missing` if there is none. */
uint64_t sim_message_number(const struct sim_message *message, const char *name, uint64_t missing);

#endif
