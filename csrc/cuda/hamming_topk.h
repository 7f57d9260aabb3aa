// Launchers of Hamming search; pointers lie on the device, `stream` is a cudaStream_t. Errors are a cudaError_t as int
// (0: success).
#pragma once
#include <cstdint>

namespace adsq::cuda {

struct TopkCall {
  const uint8_t *queries, *database;  // [num_queries, width], [num_codes, width]
  int64_t num_queries, num_codes, width, k;
  const bool* mask;    // [num_codes] or nullptr
  const int64_t* ids;  // [num_codes] or nullptr
  int32_t* distances;  // [num_queries, k]
  int64_t* indices;    // [num_queries, k]
};

// Bytes of `memory`, from an address that is a multiple of 16
int64_t topk_memory(const TopkCall& call);
int launch_topk(const TopkCall& call, void* memory, void* stream);

}  // namespace adsq::cuda
