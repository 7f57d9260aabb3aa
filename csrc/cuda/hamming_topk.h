// Launcher of top-k search; pointers lie on the device, `stream` is a cudaStream_t. It returns a cudaError_t as int (0:
// success).
#pragma once
#include "cuda/inputs.h"

namespace adsq::cuda {

// distances and indices: [queries.count, k]. mask [database.count] may be nullptr, and so may ids [database.count],
// which take the place of indices.
int launch_hamming_topk(const PackedCodes& queries, const PackedCodes& database, const bool* mask, int64_t k,
                        const int64_t* ids, int32_t* distances, int64_t* indices, const Allocate& allocate,
                        void* stream);

}  // namespace adsq::cuda
