// Quality of a Hamming ranking on the CPU, on raw pointers: no ranking is sorted, no query x database matrix is held.
#pragma once
#include <cstdint>

#include "cpu/hamming_pass.h"

namespace adsq::cpu {

// Labels of `count` items as words. Class ids: one word each, and items share a label where they are equal. Otherwise
// one bit a class, and items share a label where they have a bit in common.
struct Labels {
  const uint64_t* words;
  int64_t count;
  int64_t num_words;
  bool are_ids;
};

// How many codes, and how many that share a label with the query, lie at each distance: [queries.count, num_bits + 1]
// each. Bits from num_bits on are not read.
void hamming_relevance_histogram(const Codes& queries, const Codes& database, const Labels& query_labels,
                                 const Labels& database_labels, int64_t num_bits, int64_t* total, int64_t* relevant,
                                 const Threads& threads);

// Average precision over the first k ranks and the number of relevant codes: [queries.count] each. Equal distances rank
// by index, or, where `expected` is set, the mean over all orders of equal distances is taken.
void hamming_average_precision(const Codes& queries, const Codes& database, const Labels& query_labels,
                               const Labels& database_labels, int64_t k, bool expected, double* average_precision,
                               int64_t* num_relevant, const Threads& threads);

}  // namespace adsq::cpu
