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

int64_t topk_memory(const TopkCall& call) {
  return topk_bytes(codes_at(call.queries, call.num_queries, call.width),
                    codes_at(call.database, call.num_codes, call.width), call.k, TopkOptions());
}

int launch_topk(const TopkCall& call, void* memory, void* stream) {
  Launcher launcher(stream);
  TopkOptions options;
  options.on_tensor_cores = on_tensor_cores(launcher, call.num_queries);
  hamming_topk(launcher, codes_at(call.queries, call.num_queries, call.width),
               codes_at(call.database, call.num_codes, call.width, call.mask), call.k,
               {call.distances, call.indices, call.ids}, options, memory);
  return launcher.error();
}

}  // namespace adsq::cuda
