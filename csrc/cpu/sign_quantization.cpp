#include "cpu/sign_quantization.h"

#include "cpu/simd.h"

namespace adsq::cpu {

SignQuantizationKernel sign_quantization_kernel() {
#if defined(__x86_64__)
  switch (active_simd()) {
    case Simd::kAvx512: return avx512::kSignQuantization;
    case Simd::kAvx512bw: return avx512bw::kSignQuantization;
    case Simd::kAvx2: return avx2::kSignQuantization;
    case Simd::kGeneric: break;
  }
#endif
  return generic::kSignQuantization;
}

}  // namespace adsq::cpu
