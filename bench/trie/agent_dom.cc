/* simdjson's DOM parser and its first stage: what a rate of ours is to be compared with. */
#include <simdjson.h>

#include <memory>
#include <new>

#include "bench/trie/agent.h"

static_assert(AGENT_PADDING >= simdjson::SIMDJSON_PADDING, "bodies are padded for simdjson");

struct agent_dom {
    simdjson::dom::parser parser;
    std::unique_ptr<simdjson::internal::dom_parser_implementation> stage;
};

agent_dom *agent_dom_new(size_t size_max)
{
    auto *dom = new (std::nothrow) agent_dom;
    if (dom == nullptr) {
        return nullptr;
    }
    auto code = simdjson::get_active_implementation()->create_dom_parser_implementation(size_max, 1,
                                                                                        dom->stage);
    if (code != simdjson::SUCCESS || dom->parser.allocate(size_max) != simdjson::SUCCESS) {
        delete dom;
        return nullptr;
    }
    return dom;
}

void agent_dom_free(agent_dom *dom)
{
    delete dom;
}

bool agent_dom_parse(agent_dom *dom, const char *body, size_t size)
{
    return dom->parser.parse(body, size, false).error() == simdjson::SUCCESS;
}

bool agent_dom_index(agent_dom *dom, const char *body, size_t size)
{
    return dom->stage->stage1(reinterpret_cast<const uint8_t *>(body), size,
                              simdjson::stage1_mode::regular) == simdjson::SUCCESS;
}
