#if defined(__x86_64__)
#include "cpu/pairwise_similarity_tile.h"

namespace adsq::cpu::avx512bw {

const PairKernels<float> kPairKernels32 = pair_kernels_of<Float32>();
const PairKernels<double> kPairKernels64 = pair_kernels_of<Float64>();

}  // namespace adsq::cpu::avx512bw
#endif
