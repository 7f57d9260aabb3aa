#include "cuda/hamming_range.cuh"
#include "cuda/launch.cuh"

namespace adsq::cuda {

int launch_hamming_range(const PackedCodes& queries, const PackedCodes& database, int64_t radius, const int64_t* ids,
                         int64_t* offsets, const MakeResults& make, const Allocate& allocate, void* stream) {
  Launcher launcher(stream);
  hamming_range(launcher, queries, database, radius, ids, offsets, make, allocate);
  return launcher.error();
}

}  // namespace adsq::cuda
