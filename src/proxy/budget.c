#include "proxy/budget.h"

static void advance(struct budget *budget, uint64_t now_s)
{
    if (now_s <= budget->last_s) {
        return;
    }
    uint64_t steps = now_s - budget->last_s;
    steps = steps < BUDGET_WINDOW_S ? steps : BUDGET_WINDOW_S;
    for (uint64_t i = 0; i < steps; i++) {
        uint64_t slot = (now_s - i) % BUDGET_WINDOW_S;
        budget->request_sum -= budget->requests[slot];
        budget->retry_sum -= budget->retries[slot];
        budget->requests[slot] = 0;
        budget->retries[slot] = 0;
    }
    budget->last_s = now_s;
}

void budget_add_request(struct budget *budget, uint64_t now_s)
{
    advance(budget, now_s);
    budget->requests[budget->last_s % BUDGET_WINDOW_S]++;
    budget->request_sum++;
}

bool budget_take_retry(struct budget *budget, double share, uint64_t now_s)
{
    advance(budget, now_s);
    double granted = BUDGET_FLOOR + share * (double)budget->request_sum;
    if ((double)(budget->retry_sum + 1) > granted) {
        return false;
    }
    budget->retries[budget->last_s % BUDGET_WINDOW_S]++;
    budget->retry_sum++;
    return true;
}
