// All codes within a radius, on the GPU. The number of results depends on the data, so the host waits for it once.
#pragma once
#include "cuda/inputs.h"

namespace adsq::cuda {

// Where results go: as many as asked for.
struct RangeResults {
  int32_t* distances;
  int64_t* indices;
};
using MakeResults = std::function<RangeResults(int64_t total)>;

// Fills offsets [queries.count + 1], then the results that `make` gives room for. Where `ids` is not nullptr,
// ids[index] is given for each index. Returns a cudaError_t (0: success).
int launch_hamming_range(const PackedCodes& queries, const PackedCodes& database, int64_t radius, const int64_t* ids,
                         int64_t* offsets, const MakeResults& make, const Allocate& allocate, void* stream);

}  // namespace adsq::cuda
