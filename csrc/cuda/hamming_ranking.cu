#include "cuda/hamming_ranking.cuh"
#include "cuda/launch.cuh"

namespace adsq::cuda {

int launch_hamming_relevance_histogram(const PackedCodes& queries, const PackedCodes& database,
                                       const LabelRows& query_labels, const LabelRows& database_labels,
                                       int64_t num_bits, int64_t* total, int64_t* relevant, const Allocate& allocate,
                                       void* stream) {
  Launcher launcher(stream);
  hamming_relevance_histogram(launcher, queries, database, query_labels, database_labels, num_bits, total, relevant,
                              allocate);
  return launcher.error();
}

int launch_hamming_average_precision(const PackedCodes& queries, const PackedCodes& database,
                                     const LabelRows& query_labels, const LabelRows& database_labels, int64_t k,
                                     bool expected, double* average_precision, int64_t* num_relevant,
                                     const Allocate& allocate, void* stream) {
  Launcher launcher(stream);
  hamming_average_precision(launcher, queries, database, query_labels, database_labels, k, expected, average_precision,
                            num_relevant, allocate);
  return launcher.error();
}

}  // namespace adsq::cuda
