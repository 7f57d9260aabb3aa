// The loss of all pairs of two sets of items and its gradients, and the similarity of their labels, on raw pointers.
#pragma once
#include <cstdint>

#include "cpu/pairwise_similarity_labels.h"
#include "cpu/threads.h"
#include "element.h"

namespace adsq::cpu {

// Rows of Float16, BFloat16 or Float32 numbers for float kernels, of Float64 for double ones; entries lie side by side.
struct FeatureRows {
  const void* data;
  Element element;
  int64_t count;
  int64_t stride;  // from row to row, in elements
};

template <typename T>
struct PairLossInput {
  FeatureRows u, v;
  int64_t num_features;
  LabelInput labels_u, labels_v;
  const T* column_weights;  // of the rows of v, or null
  T scale, bias, positive_weight, negative_weight;
  Similarity similarity;
  bool squared;           // the form; else the likelihood
  bool exclude_diagonal;  // n = m
  bool mean;              // else the sum
  T* grad_u;              // [n, num_features], or null where it is not wanted
  T* grad_v;
};

struct PairLossResult {
  double loss;
  double grad_scale, grad_bias;
};

// One pass over all pairs in tiles. The result does not depend on the number of threads.
template <typename T>
PairLossResult pair_loss(const PairLossInput<T>& input, const Threads& threads);

// S [n, m].
void pairwise_similarity(const LabelInput& labels_u, const LabelInput& labels_v, Similarity similarity, float* s,
                         const Threads& threads);

// The mean of S, column j counted column_weights[j] times (null: once); 0 where there is no pair.
double mean_pairwise_similarity(const LabelInput& labels_u, const LabelInput& labels_v, const float* column_weights,
                                Similarity similarity, const Threads& threads);

extern template PairLossResult pair_loss(const PairLossInput<float>&, const Threads&);
extern template PairLossResult pair_loss(const PairLossInput<double>&, const Threads&);

}  // namespace adsq::cpu
