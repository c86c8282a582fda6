/* What a request says of itself beside its prompt: its session, its priority. */
#ifndef HASHTRIE_PROXY_HINTS_H
#define HASHTRIE_PROXY_HINTS_H

#include "prompt/prompt.h"
#include "proxy/request.h"

/* `prompt` NULL: the body has no fields. Before the body is changed. False: no memory. */
bool hints_read(struct request *request, const struct prompt *prompt);
void hints_free(struct request *request);

#endif
