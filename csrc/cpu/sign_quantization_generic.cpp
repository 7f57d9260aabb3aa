// For any machine. Vectors of 128 bits, which compilers turn into SSE2 or NEON.
#include "cpu/sign_quantization_pass.h"

namespace adsq::cpu::generic {

const SignQuantizationKernel kSignQuantization = sign_quantization_pass;

}  // namespace adsq::cpu::generic
