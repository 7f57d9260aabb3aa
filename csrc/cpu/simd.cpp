#include "cpu/simd.h"

#include <cstdlib>
#include <cstring>
#include <iterator>
#include <stdexcept>
#include <string>

namespace adsq::cpu {
namespace {

constexpr const char* kNames[] = {"generic", "avx2", "avx512bw", "avx512"};

Simd best_simd() {
  static const Simd best = is_supported(Simd::kAvx512)     ? Simd::kAvx512
                           : is_supported(Simd::kAvx512bw) ? Simd::kAvx512bw
                           : is_supported(Simd::kAvx2)     ? Simd::kAvx2
                                                           : Simd::kGeneric;
  return best;
}

}  // namespace

bool is_supported(Simd simd) {
#if defined(__x86_64__)
  switch (simd) {
    case Simd::kGeneric: return true;
    case Simd::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") &&
             __builtin_cpu_supports("popcnt");
    // What servers have had since Skylake.
    case Simd::kAvx512bw:
      return is_supported(Simd::kAvx2) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    // What Ice Lake and Zen 4 brought: all of it comes together.
    case Simd::kAvx512:
      return is_supported(Simd::kAvx512bw) && __builtin_cpu_supports("avx512vbmi") &&
             __builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("gfni");
  }
#endif
  return simd == Simd::kGeneric;
}

Simd active_simd() {
  const char* forced = std::getenv("ADSQ_SIMD");
  if (forced == nullptr || *forced == '\0') return best_simd();
  for (int i = 0; i < static_cast<int>(std::size(kNames)); ++i) {
    if (std::strcmp(forced, kNames[i]) != 0) continue;
    if (!is_supported(static_cast<Simd>(i))) {
      throw std::invalid_argument(std::string("ADSQ_SIMD: this machine or build cannot run ") + forced);
    }
    return static_cast<Simd>(i);
  }
  throw std::invalid_argument(std::string("ADSQ_SIMD: expected generic, avx2, avx512bw or avx512, got ") + forced);
}

bool fetches_into_first_cache() {
#if defined(__x86_64__)
  return __builtin_cpu_is("amd");
#else
  return false;
#endif
}

}  // namespace adsq::cpu
