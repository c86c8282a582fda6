/*
 * The one C++ file: it drives the first stage of simdjson's parser alone, picked for this CPU at
 * run time. No exception leaves it: all allocations are nothrow and simdjson's calls used here are
 * noexcept.
 */
#include "json/index.h"

#include <simdjson.h>

#include <memory>
#include <new>

struct json_index {
    std::unique_ptr<simdjson::internal::dom_parser_implementation> stage;
    size_t capacity; /* In bytes of document. */
};

namespace
{

constexpr size_t capacity_min = size_t{1024} * 1024; /* Most bodies fit without another set-up. */

bool index_grow(json_index &index, size_t size)
{
    if (index.capacity > size) {
        return true;
    }
    size_t capacity = index.capacity + index.capacity / 2;
    capacity = capacity > size ? capacity : size + 1;
    capacity = capacity > capacity_min ? capacity : capacity_min;
    index.stage.reset();
    index.capacity = 0;
    simdjson::error_code code =
        simdjson::get_active_implementation()->create_dom_parser_implementation(capacity, 1,
                                                                                index.stage);
    if (code != simdjson::SUCCESS || !index.stage) {
        index.stage.reset();
        return false;
    }
    index.stage->structural_indexes.reset(); /* Untouched; the caller's memory is used instead. */
    index.capacity = capacity;
    return true;
}

} // namespace

json_index_status json_index_build(json_index **index, const char *bytes, size_t size,
                                   uint32_t *offsets, uint32_t *count)
{
    if (*index == nullptr) {
        *index = new (std::nothrow) json_index{nullptr, 0};
    }
    if (*index == nullptr || !index_grow(**index, size)) {
        return JSON_INDEX_NO_MEMORY;
    }
    auto &stage = *(*index)->stage;
    stage.structural_indexes.reset(offsets); /* Lent for the call. */
    simdjson::error_code code = stage.stage1(reinterpret_cast<const uint8_t *>(bytes), size,
                                             simdjson::stage1_mode::regular);
    (void)stage.structural_indexes.release();
    if (code != simdjson::SUCCESS || stage.n_structural_indexes == 0) {
        return JSON_INDEX_INVALID;
    }
    *count = stage.n_structural_indexes;
    offsets[*count] = static_cast<uint32_t>(size);
    return JSON_INDEX_OK;
}

void json_index_free(json_index *index)
{
    delete index;
}
