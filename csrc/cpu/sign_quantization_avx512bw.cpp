#if defined(__x86_64__)
#include "cpu/sign_quantization_pass.h"

namespace adsq::cpu::avx512bw {

const SignQuantizationKernel kSignQuantization = sign_quantization_pass;

}  // namespace adsq::cpu::avx512bw
#endif
