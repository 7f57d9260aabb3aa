// Shared codes of features, their distance to the features, and its gradients, in one pass over memory.
#pragma once
#include <cstdint>

#include "element.h"

namespace adsq::cpu {

// All arrays hold the same entries without gaps. kFloat64 is computed in double, other elements in float.
struct SignQuantization {
  Element element;  // kFloat16, kBFloat16, kFloat32 or kFloat64
  int64_t num_features;
  const void* const* features;
  const void* codes;   // given codes, or null
  void* signs;         // where signs of the sum of features and anchor go; null where codes are given
  const void* anchor;  // or null
  double anchor_weight;
  void* const* gradients;  // one a feature, float or double; null where none is wanted
  double factor;           // of the gradients
  bool squared;            // |F - B|^2, or |F - B|
};

// Does entries first..last-1 and returns their sum of |F - B|^p over all features, the same for every variant.
using SignQuantizationKernel = double (*)(const SignQuantization&, int64_t first, int64_t last);

// The kernel of `active_simd()`.
SignQuantizationKernel sign_quantization_kernel();

// One of these for each variant that the build has.
namespace generic {
extern const SignQuantizationKernel kSignQuantization;
}
namespace avx2 {
extern const SignQuantizationKernel kSignQuantization;
}
namespace avx512bw {
extern const SignQuantizationKernel kSignQuantization;
}
namespace avx512 {
extern const SignQuantizationKernel kSignQuantization;
}

}  // namespace adsq::cpu
