#if defined(__x86_64__)
#include "cpu/pairwise_tile.h"
#include "cpu/vectors_avx512.h"

namespace adsq::cpu::avx512 {

const PairKernels<float> kPairKernels32 = pair_kernels_of<Float32>();
const PairKernels<double> kPairKernels64 = pair_kernels_of<Float64>();

}  // namespace adsq::cpu::avx512
#endif
