#include "cpu/pairwise_similarity.h"

#include <algorithm>

#include "cpu/pairwise_similarity_pass.h"

namespace adsq::cpu {

template <>
const PairKernels<float>& pair_kernels() {
  switch (active_simd()) {
#if defined(__x86_64__)
    case Simd::kAvx512: return avx512::kPairKernels32;
    case Simd::kAvx512bw: return avx512bw::kPairKernels32;
    case Simd::kAvx2: return avx2::kPairKernels32;
#endif
    default: return generic::kPairKernels32;
  }
}

template <>
const PairKernels<double>& pair_kernels() {
  switch (active_simd()) {
#if defined(__x86_64__)
    case Simd::kAvx512: return avx512::kPairKernels64;
    case Simd::kAvx512bw: return avx512bw::kPairKernels64;
    case Simd::kAvx2: return avx2::kPairKernels64;
#endif
    default: return generic::kPairKernels64;
  }
}

template <typename T>
PairLossResult pair_loss(const PairLossInput<T>& input, const Threads& threads) {
  const int64_t n = input.u.count, m = input.v.count;
  double counted = static_cast<double>(m);
  if (input.column_weights != nullptr) {
    counted = 0;
    for (int64_t j = 0; j < m; ++j) counted += static_cast<double>(input.column_weights[j]);
  }
  counted *= static_cast<double>(n - (input.exclude_diagonal ? 1 : 0));  // the diagonal holds every column once
  const double unit = input.mean && counted > 0 ? 1 / counted : 1;

  const LabelPair<T> labels(input.labels_u, input.labels_v, input.similarity, threads);
  const PairSide<T> u{false, n, input.u, nullptr, input.grad_u};
  const PairSide<T> v{true, m, input.v, input.column_weights, input.grad_v};
  const bool lanes_are_u = n <= m;
  PairSetup<T> setup{input.squared ? PairOperation::kSquared : PairOperation::kLikelihood,
                     labels,
                     input.labels_u.num_classes,
                     input.num_features,
                     lanes_are_u ? u : v,
                     lanes_are_u ? v : u};
  setup.scale = input.scale;
  setup.bias = input.bias;
  setup.positive_weight = input.positive_weight;
  setup.negative_weight = input.negative_weight;
  setup.exclude_diagonal = input.exclude_diagonal;
  setup.gradient_factor = static_cast<T>(unit * static_cast<double>(input.scale));
  const PairSums sums = PairPass<T>(setup, threads).run();
  // Without pairs nothing was written.
  if (n == 0 || m == 0) {
    if (input.grad_u != nullptr) std::fill(input.grad_u, input.grad_u + n * input.num_features, T(0));
    if (input.grad_v != nullptr) std::fill(input.grad_v, input.grad_v + m * input.num_features, T(0));
  }
  return {sums.loss * unit, sums.slope_product * unit, sums.slope * unit};
}

void pairwise_similarity(const LabelInput& labels_u, const LabelInput& labels_v, Similarity similarity, float* s,
                         const Threads& threads) {
  const LabelPair<float> labels(labels_u, labels_v, similarity, threads);
  const PairSide<float> u{false, labels_u.count, {}, nullptr, nullptr}, v{true, labels_v.count, {}, nullptr, nullptr};
  PairSetup<float> setup{PairOperation::kSimilarity, labels, labels_u.num_classes, 0, v, u};
  setup.similarity = s;
  PairPass<float>(setup, threads).run();
}

double mean_pairwise_similarity(const LabelInput& labels_u, const LabelInput& labels_v, const float* column_weights,
                                Similarity similarity, const Threads& threads) {
  const LabelPair<float> labels(labels_u, labels_v, similarity, threads);
  const bool lanes_are_u = labels_u.count <= labels_v.count;
  const PairSide<float> u{false, labels_u.count, {}, nullptr, nullptr};
  const PairSide<float> v{true, labels_v.count, {}, column_weights, nullptr};
  PairSetup<float> setup{PairOperation::kSum, labels, labels_u.num_classes, 0, lanes_are_u ? u : v,
                         lanes_are_u ? v : u};
  double counted = static_cast<double>(labels_v.count);
  if (column_weights != nullptr) {
    counted = 0;
    for (int64_t j = 0; j < labels_v.count; ++j) counted += static_cast<double>(column_weights[j]);
  }
  counted *= static_cast<double>(labels_u.count);
  const double sum = PairPass<float>(setup, threads).run().loss;
  return counted > 0 ? sum / counted : 0.0;
}

template PairLossResult pair_loss(const PairLossInput<float>&, const Threads&);
template PairLossResult pair_loss(const PairLossInput<double>&, const Threads&);

}  // namespace adsq::cpu
