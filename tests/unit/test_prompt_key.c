/* Pairs of bodies: equal keys, one a prefix of the other, or parting. */
#include "test_prompt_support.h"

#define M          "\"model\":\"m\","
#define MSG        "{" M "\"messages\":"
#define TXT        "{" M "\"prompt\":"
#define U(content) "{\"role\":\"user\",\"content\":" content "}"

enum relation { SAME, PREFIX, DIFFER };

struct pair {
    enum relation relation; /* PREFIX: a's is a true prefix of b's. DIFFER: nor the other way. */
    const char *a;
    const char *b;
};

static void check_pairs(struct prompt_fixture *fixture, enum prompt_what what,
                        const struct pair *pairs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct buf a = prompt_bytes(fixture, what, pairs[i].a, strlen(pairs[i].a));
        struct buf b = prompt_bytes(fixture, what, pairs[i].b, strlen(pairs[i].b));
        size_t common = common_size(&a, &b);
        bool a_ends = common == a.size;
        bool b_ends = common == b.size;
        enum relation relation = a_ends && b_ends ? SAME : a_ends ? PREFIX : DIFFER;
        if (relation != pairs[i].relation || (relation == DIFFER && b_ends)) {
            fail_msg("relation %d, not %d:\n%s\n%s", (int)relation, (int)pairs[i].relation,
                     pairs[i].a, pairs[i].b);
        }
        buf_fini(&a);
        buf_fini(&b);
    }
}

#define CHECK_PAIRS(state, what, pairs) \
    check_pairs(state, what, pairs, sizeof(pairs) / sizeof *(pairs))

static void test_writing_does_not_matter(void **state)
{
    static const struct pair pairs[] = {
        {SAME, MSG "[" U("\"hi\"") "]}",
         "{ \"messages\" : [ { \"content\" : \"hi\" , \"role\" : \"user\" } ]\n, \"model\":\"m\" "
         "}"},
        {SAME, MSG "[" U("\"\\u4f60\\u597d \\ud83d\\ude00\\n\"") "]}",
         MSG "[" U("\"\xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x98\x80\\u000A\"") "]}"},
        {SAME, MSG "[" U("\"hi\"") "]}",
         "{" M "\"m\\u0065ssages\":[{\"r\\u006fle\":\"us\\u0065r\",\"content\":\"hi\"}]}"},
        {SAME, MSG "[" U("\"b\"") "]}",
         "{" M "\"messages\":[" U("\"a\"") "],\"messages\":[{\"role\":\"x\",\"content\":\"a\","
                                           "\"role\":\"user\",\"content\":\"b\"}]}"},
        {SAME, MSG "[" U("\"\\ud800\"") "]}", MSG "[" U("\"\xef\xbf\xbd\"") "]}"},
        {SAME, TXT "\"a/b\"}",
         "{" M "\"temperature\":1,\"max_tokens\":5,\"stream\":true,\"prompt\":\"a\\/b\"}"},
        {SAME, TXT "[1,2,3]}", TXT " [ 1 , 2,3 ] }"},
        {SAME, TXT "\"\\\"\\\\\\b\\f\\n\\r\\t\\u001f\\u0000\"}",
         TXT "\"\\u0022\\u005c\\u0008\\u000c\\u000a\\u000d\\u0009\\u001F\\u0000\"}"},
        {SAME, TXT "\"\x7f\xe2\x80\xa8<\"}", TXT "\"\\u007f\\u2028\\u003c\"}"},
        {SAME, TXT "\"C:\\\\users\\\\/ \\\\\\\\u0041\"}",
         TXT "\"\\u0043:\\\\users\\\\\\/ \\\\\\\\u0041\"}"},
    };
    CHECK_PAIRS(*state, PROMPT_WHAT_KEY, pairs);
}

static void test_more_only_appends(void **state)
{
    static const struct pair pairs[] = {
        {PREFIX, MSG "[" U("\"a\"") "]}",
         MSG "[" U("\"a\"") ",{\"role\":\"assistant\",\"content\":\"b\"}]}"},
        {PREFIX, MSG "[" U("\"a\"") "]}", MSG "[" U("\"ab\"") "]}"},
        {PREFIX, MSG "[" U("[{\"type\":\"text\",\"text\":\"a\"}]") "]}",
         MSG "[" U("[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\"}]") "]}"},
        {PREFIX, TXT "\"abc\"}", TXT "\"abcdef\"}"},
        {PREFIX, TXT "\"a\\n\"}", TXT "\"a\\nb\"}"},
        {PREFIX, TXT "[1,2]}", TXT "[1,2,3]}"},
        {PREFIX, TXT "[\"a\"]}", TXT "[\"a\",\"b\"]}"},
        {PREFIX, TXT "[\"a\"]}", TXT "[\"ab\"]}"},
        {PREFIX, TXT "[[1,2]]}", TXT "[[1,2],[3]]}"},
        {PREFIX, MSG "[" U("\"a\"") "],\"tools\":[{\"x\":1}]}",
         MSG "[" U("\"a\"") "," U("\"b\"") "],\"tools\":[ {\"x\":1} ]}"},
        {PREFIX, MSG "[{\"type\":\"function_call\",\"id\":\"1\"}]}",
         MSG "[{\"type\":\"function_call\",\"id\":\"1\"}," U("\"b\"") "]}"},
    };
    CHECK_PAIRS(*state, PROMPT_WHAT_KEY, pairs);
}

static void test_same_to_the_engine(void **state)
{
    static const struct pair pairs[] = {
        {SAME, MSG "[" U("\"a\"") "]}", MSG "[" U("[{\"type\":\"text\",\"text\":\"a\"}]") "]}"},
        {SAME, MSG "[" U("\"a\"") "]}", MSG "[" U("[{\"text\":\"a\"}]") "]}"},
        {SAME, MSG "[" U("\"a\"") "]}",
         MSG "[" U("[{\"type\":\"text\",\"text\":\"a\",\"cache_control\":{\"type\":\"ephemeral\"}}"
                   "]") "]}"},
        {SAME, MSG "[" U("\"\"") "]}", MSG "[" U("null") "]}"},
        {SAME, MSG "[" U("\"\"") "]}", MSG "[{\"role\":\"user\"}]}"},
        {SAME, MSG "[" U("[{\"type\":\"text\",\"text\":\"\"}]") "]}", MSG "[{\"role\":\"user\"}]}"},
        {SAME, MSG "[" U("\"a\"") "]}",
         MSG "[{\"role\":\"user\",\"content\":\"a\",\"name\":null,\"tool_calls\":null,\"refusal\":"
             "null}]}"},
        {SAME, MSG "[" U("\"a\"") "]}",
         MSG "[{\"role\":\"user\",\"content\":\"a\",\"tool_calls\":[]}]}"},
        {SAME, MSG "[" U("\"a\"") "]}",
         MSG "[" U("\"a\"") "],\"tools\":null,\"documents\":[],\"chat_template_kwargs\":{},\"chat_"
                            "template\":\"\"}"},
        {SAME, MSG "[" U("\"a\"") "]}",
         MSG "[" U("\"a\"") "],\"add_special_tokens\":false,\"tool_choice\":\"auto\",\"add_"
                            "generation_prompt\":true}"},
        {SAME, TXT "\"a\"}", TXT "[\"a\"]}"},
        {SAME, TXT "\"a\"}", TXT "\"a\",\"add_special_tokens\":true,\"messages\":[]}"},
        {SAME, TXT "[1,2]}", TXT "[[1,2]]}"},
        {SAME, MSG "[{\"role\":\"user\",\"content\":\"a\",\"reasoning\":\"r\"}]}",
         MSG
         "[{\"role\":\"user\",\"content\":\"a\",\"reasoning_content\":\"r\",\"reasoning\":null}]}"},
        {SAME, MSG "[{\"role\":\"system\",\"content\":\"s\"}," U("\"a\"") "]}",
         MSG "[" U("\"a\"") "],\"system\":\"s\"}"},
        {SAME, MSG "[{\"role\":\"system\",\"content\":\"s\"}," U("\"a\"") "]}",
         MSG
         "[" U("\"a\"") "],\"system\":[{\"type\":\"text\",\"text\":\"s\",\"cache_control\":{}}]}"},
        {SAME, MSG "[{\"role\":\"system\",\"content\":\"s\"}," U("\"a\"") "]}",
         "{" M "\"instructions\":\"s\",\"input\":\"a\"}"},
        {SAME, MSG "[" U("\"a\"") "]}",
         "{" M "\"input\":[{\"type\":\"message\",\"role\":\"user\",\"content\":[{\"type\":\"input_"
         "text\",\"text\":\"a\"}]}]}"},
        {SAME, MSG "[" U("[{\"type\":\"image_url\",\"image_url\":{\"url\":\"http://x\"}}]") "]}",
         MSG "[" U("[{\"image_url\":\"http://x\",\"type\":\"image_url\"}]") "]}"},
        {SAME, MSG "[" U("[{\"type\":\"tool_result\",\"content\":\"x\"}]") "]}",
         MSG "[" U("[{\"cache_control\":{},\"content\":\"x\",\"type\":\"tool_result\"}]") "]}"},
    };
    CHECK_PAIRS(*state, PROMPT_WHAT_KEY, pairs);
}

static void test_structure_tells_apart(void **state)
{
    static const struct pair pairs[] = {
        {DIFFER, MSG "[" U("\"a\"") "]}", MSG "[{\"role\":\"system\",\"content\":\"a\"}]}"},
        {DIFFER, MSG "[" U("\"a\"") "]}", TXT "\"a\"}"},
        {DIFFER, MSG "[" U("\"ab\"") "]}", MSG "[" U("\"a\"") "," U("\"b\"") "]}"},
        {DIFFER, MSG "[" U("\"ab\"") "]}",
         MSG "[" U("[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\"}]") "]}"},
        {DIFFER, MSG "[" U("\"a\"") "]}",
         MSG "[{\"role\":\"user\",\"name\":\"n\",\"content\":\"a\"}]}"},
        {DIFFER, MSG "[" U("\"a\"") "]}", MSG "[" U("\"a\"") "],\"tools\":[{\"x\":1}]}"},
        {DIFFER, MSG "[" U("\"a\"") "],\"tools\":[{\"x\":2}]}",
         MSG "[" U("\"a\"") "],\"tools\":[{\"x\":1}]}"},
        {DIFFER, MSG "[" U("\"a\"") "],\"tools\":[1]}", MSG "[" U("\"a\"") "],\"documents\":[1]}"},
        {DIFFER, MSG "[" U("\"a\"") "],\"add_special_tokens\":true}", MSG "[" U("\"a\"") "]}"},
        {DIFFER, MSG "[" U("\"a\"") "],\"reasoning_effort\":\"low\"}",
         MSG "[" U("\"a\"") "],\"reasoning_effort\":\"high\"}"},
        {DIFFER, MSG "[{\"role\":\"user\",\"content\":\"a\",\"tool_call_id\":\"1\"}]}",
         MSG "[{\"role\":\"user\",\"content\":\"a\",\"name\":\"1\"}]}"},
        {DIFFER, MSG "[{\"role\":\"user\",\"tool_calls\":[{\"id\":\"1\"}]}]}",
         MSG "[{\"role\":\"user\",\"tool_calls\":[{\"id\":\"2\"}]}]}"},
        {DIFFER, MSG "[" U("[{\"type\":\"image_url\",\"image_url\":{\"url\":\"x\"}}]") "]}",
         MSG "[" U("[{\"type\":\"text\",\"text\":\"x\"}]") "]}"},
        {DIFFER, MSG "[" U("[{\"type\":\"image_url\",\"image_url\":{\"url\":\"x\"}}]") "]}",
         MSG "[" U("[{\"type\":\"image_url\",\"image_url\":{\"url\":\"y\"}}]") "]}"},
        {DIFFER,
         MSG "[" U("[{\"type\":\"input_audio\",\"input_audio\":{\"data\":\"x\",\"format\":\"wav\"}}"
                   "]") "]}",
         MSG "[" U("[{\"type\":\"input_audio\",\"input_audio\":{\"data\":\"y\",\"format\":\"wav\"}}"
                   "]") "]}"},
        {DIFFER, MSG "[" U("[{\"type\":\"video_url\",\"video_url\":{\"url\":\"x\"}}]") "]}",
         MSG "[" U("[{\"type\":\"audio_url\",\"audio_url\":{\"url\":\"x\"}}]") "]}"},
        {DIFFER, MSG "[" U("[{\"type\":\"refusal\",\"refusal\":\"x\"}]") "]}",
         MSG "[" U("[{\"type\":\"text\",\"text\":\"x\"}]") "]}"},
        {DIFFER, MSG "[" U("[{\"type\":\"novel\",\"x\":1}]") "]}",
         MSG "[" U("[{\"type\":\"novel\",\"x\":2}]") "]}"},
        {DIFFER,
         MSG "[" U("[{\"type\":\"image\",\"source\":{\"type\":\"base64\",\"data\":\"x\"}}]") "]}",
         MSG "[" U("[{\"type\":\"image\",\"source\":{\"type\":\"base64\",\"data\":\"y\"}}]") "]}"},
        {DIFFER, MSG "[" U("1") "]}", MSG "[" U("\"1\"") "]}"},
        {DIFFER, TXT "\"\\n\"}", TXT "\"\\\\n\"}"},
        {DIFFER, TXT "\"\\u001b\"}", TXT "\"\\\\u001b\"}"},
        {DIFFER, TXT "\"\\\\\\n\"}", TXT "\"\\n\\\\\"}"},
        {DIFFER, MSG "[" U("true") "]}", MSG "[" U("false") "]}"},
        {DIFFER, TXT "[1,2]}", TXT "[\"1\",\"2\"]}"},
        {DIFFER, TXT "[1,2,3]}", TXT "[1,3]}"},
        {DIFFER, TXT "[[1],[2]]}", TXT "[1,2]}"},
        {DIFFER, TXT "[\"ab\"]}", TXT "[\"a\",\"b\"]}"},
        {DIFFER, TXT "[-1]}", TXT "[4294967295]}"},
        {DIFFER, TXT "[1,2,null]}", TXT "[1,2,[]]}"},
        {DIFFER, TXT "[1,2,\"a\"]}", TXT "[1,2,3]}"},
        {DIFFER, TXT "[[1],2]}", TXT "[[1],[2]]}"},
        {DIFFER, TXT "[[1],[2,\"3\"]]}", TXT "[[1],[2,3]]}"},
        {DIFFER, TXT "[\"a\",null]}", TXT "[\"a\",\"null\"]}"},
        {PREFIX, TXT "[\"a\"]}", TXT "[\"a\",null]}"},
        {DIFFER, TXT "[null]}", TXT "[{}]}"},
        {DIFFER, TXT "[1.5]}", TXT "[1]}"},
        {DIFFER, TXT "\"a\",\"add_special_tokens\":false}", TXT "\"a\"}"},
        {DIFFER,
         MSG "[" U("[{\"type\":\"text\",\"text\":\"\"},{\"type\":\"text\",\"text\":\"a\"}]") "]}",
         MSG "[" U("\"a\"") "]}"},
    };
    CHECK_PAIRS(*state, PROMPT_WHAT_KEY, pairs);
}

#define TOOL(json) MSG "[" U("\"a\"") "],\"tools\":" json "}"

static void test_canonical(void **state)
{
    static const struct pair pairs[] = {
        {SAME, TOOL("{\"b\":1,\"a\":[ true , null ],\"aa\":\"\\u0041\"}"),
         TOOL("{\"a\":[true,null],\"aa\":\"A\",\"b\":1}")},
        {SAME, TOOL("{\"a\":1,\"a\":2}"), TOOL("{\"a\":2}")},
        {SAME, TOOL("{\"a\":1,\"\\u0061\":2}"), TOOL("{\"a\":2}")},
        {SAME, TOOL("{\"\\u0061\":3,\"x\":{\"y\":1,\"\\n\":[{}]},\"a\":2}"),
         TOOL("{\"x\":{\"\\u000a\":[{}],\"y\":1},\"a\":2}")},
        {DIFFER, TOOL("{\"a\":1}"), TOOL("{\"a\":\"1\"}")},
        {DIFFER, TOOL("{\"a\":true}"), TOOL("{\"a\":\"true\"}")},
        {DIFFER, TOOL("{\"a\":null}"), TOOL("{\"a\":false}")},
        {DIFFER, TOOL("{\"a\":[]}"), TOOL("{\"a\":{}}")},
        {DIFFER, TOOL("[[1],2]"), TOOL("[[1,2]]")},
        {DIFFER, TOOL("[{\"a\":1},{\"b\":1}]"), TOOL("[{\"a\":1,\"b\":1}]")},
        {DIFFER, TOOL("[\"ab\"]"), TOOL("[\"a\",\"b\"]")},
        {DIFFER, TOOL("{\"ab\":\"c\"}"), TOOL("{\"a\":\"bc\"}")},
        {DIFFER, TOOL("[1,2]"), TOOL("[2,1]")},
        {SAME,
         TOOL("{\"m\":1,\"l\":1,\"k\":1,\"j\":1,\"i\":1,\"h\":1,\"g\":1,\"f\":1,\"e\":1,\"d\":1,"
              "\"c\":1,\"b\":1,\"a\":1,\"b\":2,\"a\":3}"),
         TOOL("{\"a\":3,\"b\":2,\"c\":1,\"d\":1,\"e\":1,\"f\":1,\"g\":1,\"h\":1,\"i\":1,\"j\":1,"
              "\"k\":1,\"l\":1,\"m\":1}")},
    };
    CHECK_PAIRS(*state, PROMPT_WHAT_KEY, pairs);
}

static void test_namespace(void **state)
{
    static const struct pair pairs[] = {
        {SAME, TXT "\"a\"}", TXT "\"b\"}"},
        {SAME, TXT "\"a\"}",
         TXT "\"a\",\"cache_salt\":null,\"lora_path\":\"\",\"lora_request\":{}}"},
        {PREFIX, TXT "\"a\"}", "{\"model\":\"mm\"}"},
        {DIFFER, "{\"model\":\"n\"}", TXT "\"a\"}"},
        {DIFFER, TXT "\"a\",\"cache_salt\":\"x\"}", TXT "\"a\",\"cache_salt\":\"y\"}"},
        {DIFFER, TXT "\"a\",\"cache_salt\":\"x\"}", TXT "\"a\",\"lora_path\":\"x\"}"},
        {DIFFER, TXT "\"a\",\"cache_salt\":\"x\"}", "{\"model\":\"mx\"}"},
        {DIFFER, TXT "\"a\",\"cache_salt\":1}", TXT "\"a\",\"cache_salt\":\"1\"}"},
        {DIFFER, TXT "\"a\",\"lora_path\":\"x\"}", TXT "\"a\",\"lora_path\":\"y\"}"},
        {DIFFER, TXT "\"a\",\"lora_request\":{\"lora_name\":\"x\",\"lora_path\":\"/p\"}}",
         TXT "\"a\",\"lora_request\":{\"lora_name\":\"y\",\"lora_path\":\"/p\"}}"},
        {SAME, TXT "\"a\",\"lora_request\":{\"lora_name\":\"x\"}}",
         TXT "\"a\",\"lora_request\":\"x\"}"},
        {SAME, TXT "\"a\",\"lora_request\":{\"name\":\"x\"}}", TXT "\"a\",\"lora_name\":\"x\"}"},
        {DIFFER, TXT "\"a\",\"lora_path\":[\"x\",null]}", TXT "\"a\",\"lora_path\":[\"y\",null]}"},
    };
    CHECK_PAIRS(*state, PROMPT_WHAT_NAMESPACE, pairs);
}

static void test_bytes(void **state)
{
    static const char body[] = MSG "[" U("\"hi\"") "],\"tools\":[{\"b\":-1,\"a\":null}]}";
    static const char wanted[] = "\xff"
                                 "Ftools\xff[\xff{\xff"
                                 "ka\xffz\xff"
                                 "kb\xffn-1\xff}\xff]\xffMuser\xff"
                                 "Chi";
    struct buf key = prompt_bytes(*state, PROMPT_WHAT_KEY, body, sizeof body - 1);
    assert_int_equal(key.size, sizeof wanted - 1);
    assert_memory_equal(key.data, wanted, sizeof wanted - 1);
    buf_fini(&key);
    static const char escaped[] = TXT "\"\\u0022\\/\\u001B\\u00e9 \\\\u0041\\n\"}";
    static const char usual[] = "\xffP\\\"/\\u001b\xc3\xa9 \\\\u0041\\n";
    key = prompt_bytes(*state, PROMPT_WHAT_KEY, escaped, sizeof escaped - 1);
    assert_int_equal(key.size, sizeof usual - 1);
    assert_memory_equal(key.data, usual, sizeof usual - 1);
    buf_fini(&key);
    static const char tokens[] = TXT "[[1,65536],[258]]}";
    static const char token_bytes[] = "\xffI\1\0\0\0\0\0\1\0\xff\xff\xff\xff\2\1\0\0";
    key = prompt_bytes(*state, PROMPT_WHAT_KEY, tokens, sizeof tokens - 1);
    assert_int_equal(key.size, sizeof token_bytes - 1);
    assert_memory_equal(key.data, token_bytes, sizeof token_bytes - 1);
    buf_fini(&key);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_writing_does_not_matter, prompt_setup,
                                        prompt_teardown),
        cmocka_unit_test_setup_teardown(test_more_only_appends, prompt_setup, prompt_teardown),
        cmocka_unit_test_setup_teardown(test_same_to_the_engine, prompt_setup, prompt_teardown),
        cmocka_unit_test_setup_teardown(test_structure_tells_apart, prompt_setup, prompt_teardown),
        cmocka_unit_test_setup_teardown(test_canonical, prompt_setup, prompt_teardown),
        cmocka_unit_test_setup_teardown(test_namespace, prompt_setup, prompt_teardown),
        cmocka_unit_test_setup_teardown(test_bytes, prompt_setup, prompt_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
