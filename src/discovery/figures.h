/* From the samples of one scrape to what the router wants to know. Private to the room. */
#ifndef HASHTRIE_DISCOVERY_FIGURES_H
#define HASHTRIE_DISCOVERY_FIGURES_H

#include "discovery/discovery.h"
#include "discovery/exposition.h"

enum { FIGURES_SOURCES_MAX = 24 };

struct figures {
    struct {
        double sum;
        double max;
        uint32_t count;
    } sources[FIGURES_SOURCES_MAX]; /* By place in the table of figures.c. */
};

void figures_add(struct figures *figures, const struct exposition_sample *sample);
struct discovery_figures figures_result(const struct figures *figures);

#endif
