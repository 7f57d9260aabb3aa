// Quality of a Hamming ranking on the GPU: no ranking is sorted, no query x database matrix is held. The functions
// return a cudaError_t (0: success).
#pragma once
#include "cuda/inputs.h"
#include "element.h"

namespace adsq::cuda {

// Class ids int64 [count], or rows [count, num_classes] of an element type, above zero where an item has the class.
struct LabelRows {
  const void* data;
  Element element;
  int64_t count, num_classes;
  bool are_ids;
};

// How many codes, and how many that share a label with the query, lie at each distance: [queries.count, num_bits + 1]
// each. Bits from num_bits on are not read.
int launch_hamming_relevance_histogram(const PackedCodes& queries, const PackedCodes& database,
                                       const LabelRows& query_labels, const LabelRows& database_labels,
                                       int64_t num_bits, int64_t* total, int64_t* relevant, const Allocate& allocate,
                                       void* stream);

// Average precision over the first k ranks and the number of relevant codes: [queries.count] each. Equal distances rank
// by index, or, where `expected` is set, the mean over all orders of equal distances is taken.
int launch_hamming_average_precision(const PackedCodes& queries, const PackedCodes& database,
                                     const LabelRows& query_labels, const LabelRows& database_labels, int64_t k,
                                     bool expected, double* average_precision, int64_t* num_relevant,
                                     const Allocate& allocate, void* stream);

}  // namespace adsq::cuda
