/* A Content-Type (up to the first NUL) and a form: what is found lies in the body, between its
 * delimiters, and without one. */
#include <string.h>

#include "base/check.h"
#include "fuzz/fuzz.h"
#include "http/http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *nul = size == 0 ? NULL : memchr(data, 0, size);
    size_t type_size = nul == NULL ? size : (size_t)(nul - data);
    struct span type = {.data = (const char *)data, .size = type_size};
    struct span body = {0};
    if (nul != NULL) {
        body = (struct span){.data = (const char *)nul + 1, .size = size - type_size - 1};
    }
    struct span boundary = {0};
    if (!http_multipart_boundary(type, &boundary)) {
        return 0;
    }
    struct span field = http_multipart_field(body, boundary, "model");
    if (field.data != NULL) {
        REQUIRE(field.data > body.data && field.data + field.size < body.data + body.size);
        REQUIRE(memcmp(field.data - 4, "\r\n\r\n", 4) == 0);
        REQUIRE(memcmp(field.data + field.size, "\r\n--", 4) == 0);
        REQUIRE(memcmp(field.data + field.size + 4, boundary.data, boundary.size) == 0);
    }
    return 0;
}
