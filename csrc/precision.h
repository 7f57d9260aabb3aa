// Average precision where equal distances stand in any order, for CPU and CUDA alike.
#pragma once
#include <cmath>
#include <cstdint>

#include "element.h"

namespace adsq {

// H(x - 1/2) - log(x) - Euler's constant, to the last digit for x > 32.
ADSQ_HOST_DEVICE inline double harmonic_rest(double x) {
  const double y = 1 / (x * x);
  return y * (1.0 / 24 - y * (7.0 / 960 - y * (31.0 / 8064 - y * (127.0 / 30720))));
}

// 1 / (low + 1) + ... + 1 / high, precise also where high is near low.
ADSQ_HOST_DEVICE inline double harmonic_difference(int64_t low, int64_t high) {
  double sum = 0;
  for (; low < high && low < 32; ++low) sum += 1.0 / static_cast<double>(low + 1);
  if (low == high) return sum;
  const double first = static_cast<double>(low) + 0.5, last = static_cast<double>(high) + 0.5;
  return sum + std::log1p((last - first) / first) + (harmonic_rest(last) - harmonic_rest(first));
}

// The sum of precisions at the relevant ranks up to k, on average over all orders within the distances: the formula of
// kernels/hamming_ranking/README.md.
ADSQ_HOST_DEVICE inline double expected_precision_sum(const int64_t* total, const int64_t* relevant,
                                                      int64_t num_distances, int64_t k) {
  double sum = 0;
  int64_t before = 0, relevant_before = 0;
  for (int64_t d = 0; d < num_distances && before < k; ++d) {
    const int64_t taken = k - before < total[d] ? k - before : total[d];
    if (relevant[d] > 0) {
      const auto all = static_cast<double>(total[d]), good = static_cast<double>(relevant[d]);
      const double slope = total[d] > 1 ? (good - 1) / (all - 1) : 0;
      const double harmonic = harmonic_difference(before, before + taken);
      const double linear = static_cast<double>(taken) - static_cast<double>(before + 1) * harmonic;
      sum += good / all * (static_cast<double>(relevant_before + 1) * harmonic + slope * linear);
    }
    before += total[d];
    relevant_before += relevant[d];
  }
  return sum;
}

}  // namespace adsq
