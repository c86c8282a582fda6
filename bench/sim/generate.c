#include "bench/sim/generate.h"

#include <math.h>

#include "base/random.h"

enum {
    SHARED_SYSTEM_TOKENS = 6000,
    TAIL_PREFIXES = 20,
    TAIL_TOKENS = 4000,
    SIBLING_TOKENS = 8000,
    AGENT_TOOL_SETS = 3,
    AGENT_TOOL_TOKENS = 4000,
    AGENT_TURNS = 40,
    POPULAR_PREFIXES = 6,
    POPULAR_TOKENS = 64000,
    GROUPS = 40,
    GROUP_TOKENS = 16000,
    CHAT_SYSTEMS = 3,
    CHAT_TURNS_MAX = 12,
    CHAT_PIECES_MAX = 2 * CHAT_TURNS_MAX + 2,
    DOCUMENT_QUESTIONS = 3,
    ROUNDS_MAX = 10,
    MULTIROUND_USERS = 160,
    MULTIROUND_SYSTEM_TOKENS = 1000,
    MULTIROUND_USER_TOKENS = 20000,
    PR711_USERS = 100,
    PR711_ROUNDS = 5,
    RETURNING_USERS = 3000,
    ROUND_ANSWER_TOKENS = 100,
    ROUND_QUESTION_TOKENS = 20,
};

/* What a generator works with. */
struct maker {
    struct sim_workload *workload;
    struct random random;
    uint64_t next_id; /* Of pieces that nobody had before. */
    double now_s;
};

static struct maker maker_of(struct sim_workload *workload, const struct sim_generate *how)
{
    return (struct maker){
        .workload = workload, .random = {.state = how->seed}, .next_id = UINT64_C(1) << 32};
}

static double unit(struct maker *maker)
{
    return ((double)(random_next(&maker->random) >> 11) + 0.5) / 9007199254740992.0;
}

static double exponential(struct maker *maker, double mean)
{
    return -mean * log(unit(maker));
}

static uint32_t between(struct maker *maker, uint32_t least, uint32_t most)
{
    return least + random_below(&maker->random, most - least + 1);
}

/* Long-tailed: half below the median, one of a hundred above ten times that. */
static uint32_t around(struct maker *maker, double median, uint32_t most)
{
    double normal = sqrt(-2 * log(unit(maker))) * cos(6.283185307179586 * unit(maker));
    double value = median * exp(normal);
    return value < 1 ? 1 : value > most ? most : (uint32_t)value;
}

/* 0 is twice as likely as 1, three times as likely as 2, and so on. */
static uint32_t zipf(struct maker *maker, uint32_t count)
{
    double sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        sum += 1.0 / (i + 1);
    }
    double at = unit(maker) * sum;
    for (uint32_t i = 0; i < count; i++) {
        at -= 1.0 / (i + 1);
        if (at <= 0) {
            return i;
        }
    }
    return count - 1;
}

static struct sim_request *request_at(struct maker *maker, double at_s, uint32_t output_tokens)
{
    return sim_add_request(maker->workload, (uint64_t)(at_s * 1e9), output_tokens);
}

static void own_piece(struct maker *maker, uint32_t tokens)
{
    sim_add_piece(maker->workload, maker->next_id++, tokens);
}

/* The next arrival of a Poisson process; false: the time is over. */
static bool next_arrival(struct maker *maker, const struct sim_generate *how)
{
    maker->now_s += exponential(maker, 1 / how->rate);
    return maker->now_s < how->seconds;
}

void sim_shared_system(struct sim_workload *workload, const struct sim_generate *how)
{
    struct maker maker = maker_of(workload, how);
    while (next_arrival(&maker, how)) {
        (void)request_at(&maker, maker.now_s, between(&maker, 50, 250));
        sim_add_piece(workload, 1, SHARED_SYSTEM_TOKENS);
        own_piece(&maker, between(&maker, 100, 800));
    }
    sim_sort(workload);
}

void sim_unique_tail(struct sim_workload *workload, const struct sim_generate *how)
{
    struct maker maker = maker_of(workload, how);
    while (next_arrival(&maker, how)) {
        (void)request_at(&maker, maker.now_s, between(&maker, 50, 150));
        sim_add_piece(workload, 1 + random_below(&maker.random, TAIL_PREFIXES), TAIL_TOKENS);
        own_piece(&maker, between(&maker, TAIL_TOKENS / 2, TAIL_TOKENS * 3 / 2));
    }
    sim_sort(workload);
}

void sim_siblings(struct sim_workload *workload, const struct sim_generate *how)
{
    struct maker maker = maker_of(workload, how);
    while (next_arrival(&maker, how)) {
        uint64_t prefix = maker.next_id++;
        uint32_t count = between(&maker, 4, 28);
        for (uint32_t i = 0; i < count; i++) {
            (void)request_at(&maker, maker.now_s + 0.005 * unit(&maker), between(&maker, 50, 150));
            sim_add_piece(workload, prefix, SIBLING_TOKENS);
            own_piece(&maker, between(&maker, 100, 300));
        }
    }
    sim_sort(workload);
}

void sim_agents(struct sim_workload *workload, const struct sim_generate *how)
{
    struct maker maker = maker_of(workload, how);
    uint32_t session = 0;
    while (next_arrival(&maker, how)) {
        uint64_t tools = 1 + random_below(&maker.random, AGENT_TOOL_SETS);
        struct sim_piece told[2 * AGENT_TURNS + 1] = {
            {.id = maker.next_id++, .tokens = around(&maker, 2000, 20000)}};
        size_t told_count = 1;
        double at_s = maker.now_s;
        for (int turn = 0; turn < AGENT_TURNS && at_s < how->seconds; turn++) {
            struct sim_request *request = request_at(&maker, at_s, around(&maker, 100, 1000));
            uint64_t answer = request->answer;
            uint32_t answer_tokens = request->output_tokens;
            request->session = session;
            sim_add_piece(workload, tools, AGENT_TOOL_TOKENS);
            for (size_t i = 0; i < told_count; i++) {
                sim_add_piece(workload, told[i].id, told[i].tokens);
            }
            told[told_count++] = (struct sim_piece){.id = answer, .tokens = answer_tokens};
            told[told_count++] =
                (struct sim_piece){.id = maker.next_id++, .tokens = around(&maker, 400, 4000)};
            at_s += 2 + 0.012 * answer_tokens + exponential(&maker, 3);
        }
        session++;
    }
    sim_sort(workload);
}

/* One conversation from maker->now_s on. */
static void converse(struct maker *maker, uint32_t session, uint32_t token_bytes)
{
    struct sim_workload *workload = maker->workload;
    struct sim_piece told[CHAT_PIECES_MAX] = {
        {.id = 1 + zipf(maker, CHAT_SYSTEMS) + 16 * token_bytes, .tokens = 1500}};
    size_t told_count = 1;
    double at_s = maker->now_s;
    for (int turn = 0; turn < CHAT_TURNS_MAX; turn++) {
        told[told_count++] = (struct sim_piece){
            .id = maker->next_id++, .tokens = around(maker, turn == 0 ? 1200 : 150, 30000)};
        struct sim_request *request = request_at(maker, at_s, around(maker, 250, 1500));
        request->session = session;
        request->token_bytes = token_bytes;
        struct sim_piece answer = {.id = request->answer, .tokens = request->output_tokens};
        for (size_t i = 0; i < told_count; i++) {
            sim_add_piece(workload, told[i].id, told[i].tokens);
        }
        told[told_count++] = answer;
        at_s += 0.015 * answer.tokens + 5 + exponential(maker, 30);
        if (unit(maker) < 0.2) {
            break;
        }
    }
}

void sim_chat(struct sim_workload *workload, const struct sim_generate *how)
{
    struct maker maker = maker_of(workload, how);
    for (uint32_t session = 0; next_arrival(&maker, how); session++) {
        converse(&maker, session, 4);
    }
    sim_sort(workload);
}

void sim_cjk(struct sim_workload *workload, const struct sim_generate *how)
{
    struct maker maker = maker_of(workload, how);
    for (uint32_t session = 0; next_arrival(&maker, how); session++) {
        converse(&maker, session, session % 2 == 0 ? 4 : 2);
    }
    sim_sort(workload);
}

void sim_huge(struct sim_workload *workload, const struct sim_generate *how)
{
    struct maker maker = maker_of(workload, how);
    while (next_arrival(&maker, how)) {
        if (unit(&maker) > 0.1 / DOCUMENT_QUESTIONS) {
            (void)request_at(&maker, maker.now_s, between(&maker, 50, 250));
            sim_add_piece(workload, 1, 500);
            own_piece(&maker, between(&maker, 100, 1500));
            continue;
        }
        struct sim_piece document = {.id = maker.next_id++,
                                     .tokens = between(&maker, 60000, 110000)};
        double at_s = maker.now_s;
        for (int i = 0; i < DOCUMENT_QUESTIONS; i++) {
            (void)request_at(&maker, at_s, between(&maker, 100, 400));
            sim_add_piece(workload, 1, 500);
            sim_add_piece(workload, document.id, document.tokens);
            own_piece(&maker, between(&maker, 30, 100));
            at_s += 15 + exponential(&maker, 20);
        }
    }
    sim_sort(workload);
}

void sim_popular(struct sim_workload *workload, const struct sim_generate *how)
{
    struct maker maker = maker_of(workload, how);
    while (next_arrival(&maker, how)) {
        (void)request_at(&maker, maker.now_s, between(&maker, 100, 500));
        sim_add_piece(workload, 1 + zipf(&maker, POPULAR_PREFIXES), POPULAR_TOKENS);
        own_piece(&maker, between(&maker, 50, 200));
    }
    sim_sort(workload);
}

void sim_groups(struct sim_workload *workload, const struct sim_generate *how)
{
    struct maker maker = maker_of(workload, how);
    while (next_arrival(&maker, how)) {
        (void)request_at(&maker, maker.now_s, between(&maker, 50, 250));
        sim_add_piece(workload, 1 + zipf(&maker, GROUPS), GROUP_TOKENS);
        own_piece(&maker, between(&maker, 100, 1000));
    }
    sim_sort(workload);
}

void sim_unique(struct sim_workload *workload, const struct sim_generate *how)
{
    struct maker maker = maker_of(workload, how);
    while (next_arrival(&maker, how)) {
        (void)request_at(&maker, maker.now_s, between(&maker, 50, 350));
        own_piece(&maker, around(&maker, 2000, 30000));
    }
    sim_sort(workload);
}

/* ---- Rounds ---- */

struct rounds {
    uint32_t users;         /* At a time. */
    uint32_t count;         /* Of each user. */
    uint32_t system_tokens; /* Shared by all. */
    uint32_t least_tokens;  /* The user's own context. */
    uint32_t most_tokens;
};

/* As multi-round-qa.py paces them: each user asks every users / rate seconds, and a new one joins
 * whenever one leaves. */
static void ask_in_rounds(struct sim_workload *workload, const struct sim_generate *how,
                          const struct rounds *rounds)
{
    struct maker maker = maker_of(workload, how);
    double gap_s = rounds->users / how->rate;
    double join_s = gap_s * rounds->count / rounds->users;
    for (uint32_t user = 0; user * join_s < how->seconds; user++) {
        struct sim_piece told[2 * ROUNDS_MAX];
        struct sim_piece own = {.id = maker.next_id++,
                                .tokens =
                                    between(&maker, rounds->least_tokens, rounds->most_tokens)};
        for (uint32_t round = 0; round < rounds->count; round++) {
            double at_s = user * join_s + round * gap_s + 0.1 * join_s * unit(&maker);
            struct sim_request *request = request_at(&maker, at_s, ROUND_ANSWER_TOKENS);
            uint64_t answer = request->answer;
            request->session = user;
            if (rounds->system_tokens > 0) {
                sim_add_piece(workload, 1, rounds->system_tokens);
            }
            sim_add_piece(workload, own.id, own.tokens);
            told[(size_t)2 * round] =
                (struct sim_piece){.id = maker.next_id++, .tokens = ROUND_QUESTION_TOKENS};
            for (uint32_t i = 0; i <= 2 * round; i++) {
                sim_add_piece(workload, told[i].id, told[i].tokens);
            }
            told[2 * round + 1] = (struct sim_piece){.id = answer, .tokens = ROUND_ANSWER_TOKENS};
        }
    }
    sim_sort(workload);
}

void sim_multiround(struct sim_workload *workload, const struct sim_generate *how)
{
    struct rounds rounds = {.users = MULTIROUND_USERS,
                            .count = ROUNDS_MAX,
                            .system_tokens = MULTIROUND_SYSTEM_TOKENS,
                            .least_tokens = MULTIROUND_USER_TOKENS,
                            .most_tokens = MULTIROUND_USER_TOKENS};
    ask_in_rounds(workload, how, &rounds);
}

void sim_pr711(struct sim_workload *workload, const struct sim_generate *how)
{
    struct rounds rounds = {
        .users = PR711_USERS, .count = PR711_ROUNDS, .least_tokens = 8000, .most_tokens = 64000};
    ask_in_rounds(workload, how, &rounds);
}

void sim_returning(struct sim_workload *workload, const struct sim_generate *how)
{
    struct rounds rounds = {.users = RETURNING_USERS,
                            .count = PR711_ROUNDS,
                            .least_tokens = 8000,
                            .most_tokens = 64000};
    ask_in_rounds(workload, how, &rounds);
}
