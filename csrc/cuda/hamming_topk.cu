#include "cuda/hamming_topk.h"

#include <cstdlib>

#include "cuda/hamming_topk.cuh"
#include "cuda/launch.cuh"

namespace adsq::cuda {
namespace {

// ADSQ_TENSOR_CORES=0 or 1 forces the way of comparing, for tests and measurements.
bool on_tensor_cores(const Launcher& launcher, int64_t num_queries) {
  const char* forced = std::getenv("ADSQ_TENSOR_CORES");
  if (forced != nullptr && (*forced == '0' || *forced == '1')) return *forced == '1';
  return launcher.has_bit_matrices() && num_queries >= kMatrixQueries;
}

}  // namespace

int launch_hamming_topk(const PackedCodes& queries, const PackedCodes& database, const bool* mask, int64_t k,
                        const int64_t* ids, int32_t* distances, int64_t* indices, const Allocate& allocate,
                        void* stream) {
  Launcher launcher(stream);
  const TopkOptions options(queries.count, database.count, k, on_tensor_cores(launcher, queries.count));
  hamming_topk(launcher, queries, database, mask, k, {distances, indices, ids}, allocate, options);
  return launcher.error();
}

}  // namespace adsq::cuda
