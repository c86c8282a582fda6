#include "proxy/hints.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "proxy/conn.h"

enum { SESSION_BYTES_MAX = 64 * 1024, NUMBER_BYTES_MAX = 24 };

/* As http_header(), but the name may have capitals. */
static struct span find_header(const struct http_head *head, const char *name)
{
    size_t size = strlen(name);
    for (size_t i = 0; i < head->header_count; i++) {
        struct span given = head->headers[i].name;
        size_t same = 0;
        while (given.size == size && same < size &&
               span_lower(given.data[same]) == span_lower(name[same])) {
            same++;
        }
        if (same == size && size > 0) {
            return head->headers[i].value;
        }
    }
    return (struct span){0};
}

/* The header of that name, else the member of the body. False: neither. */
static bool read_text(struct request *request, const struct prompt *prompt, const char *header,
                      const char *member, struct buf *out, bool *fits)
{
    struct span given = find_header(http_parser_head(request->conn->parser), header);
    *fits = true;
    if (given.size > 0) {
        *fits = buf_append(out, given.data, given.size);
        return true;
    }
    return prompt != NULL && prompt_member_text(prompt, member, out, fits);
}

static bool read_session(struct request *request, const struct prompt *prompt)
{
    const char *key = request->worker->settings->config->session_key;
    struct buf text;
    bool fits = true;
    buf_init(&text, &request->worker->mem, SESSION_BYTES_MAX);
    if (key != NULL && read_text(request, prompt, key, key, &text, &fits) && fits &&
        text.size > 0) {
        request->session = mem_strndup(&request->worker->mem, text.data, text.size);
        request->session_size = text.size;
        fits = request->session != NULL;
    }
    buf_fini(&text);
    return fits;
}

/* Whatever is no whole number counts as none. */
static bool read_priority(struct request *request, const struct prompt *prompt)
{
    const struct config *config = request->worker->router->config;
    struct buf text;
    bool fits = true;
    request->priority = (int64_t)config->priority_default;
    buf_init(&text, &request->worker->mem, SESSION_BYTES_MAX);
    if (read_text(request, prompt, config->priority_header, config->priority_field, &text, &fits) &&
        fits && text.size > 0 && text.size < NUMBER_BYTES_MAX) {
        char number[NUMBER_BYTES_MAX] = "";
        char *end = NULL;
        memcpy(number, text.data, text.size);
        errno = 0;
        long long value = strtoll(number, &end, 10);
        if (*end == '\0' && end != number && errno == 0) {
            request->priority = value;
        }
    }
    buf_fini(&text);
    return fits;
}

bool hints_read(struct request *request, const struct prompt *prompt)
{
    return read_session(request, prompt) && read_priority(request, prompt);
}

void hints_free(struct request *request)
{
    mem_free(&request->worker->mem, request->session, request->session_size + 1);
    request->session = NULL;
}
