/* Files of options: YAML, or JSON if the first byte is a brace. A tree that was read has its links
 * within it, and each of its texts ends. */
#include <string.h>

#include "base/check.h"
#include "config/tree.h"
#include "fuzz/fuzz.h"

static void check_tree(const struct tree *tree)
{
    size_t reached = 1;
    for (size_t i = 0; i < tree->count; i++) {
        const struct tree_value *value = &tree->values[i];
        for (uint32_t at = value->first; at != 0; at = tree->values[at].next) {
            REQUIRE(at > i && at < tree->count);
            reached++;
        }
        if (value->kind == TREE_TEXT) {
            REQUIRE(value->text < tree->text.size);
            REQUIRE(memchr(tree_text(tree, (uint32_t)i), '\0', tree->text.size - value->text));
        }
    }
    REQUIRE(reached == tree->count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mem mem;
    struct tree tree;
    if (size > TREE_BYTES_MAX) {
        return 0;
    }
    mem_init(&mem, SIZE_MAX);
    tree_init(&tree, &mem);
    struct span text = {.data = size > 0 ? (const char *)data : "", .size = size};
    bool json = size > 0 && data[0] == '{';
    if (json ? tree_read_json(&tree, text) : tree_read_yaml(&tree, text)) {
        check_tree(&tree);
    } else {
        REQUIRE(tree.problem[0] != '\0');
    }
    tree_fini(&tree);
    mem_fini(&mem);
    return 0;
}
