// One pass over all pairs of two sets of items. One set lies along the lanes of vectors, and is laid out for that once;
// the other is streamed, in parts that threads share out.
#pragma once
#include <vector>

#include "cpu/memory.h"
#include "cpu/pairwise_similarity.h"

namespace adsq::cpu {

template <typename T>
struct PairSide {
  bool is_v;
  int64_t count;
  FeatureRows features;  // losses only
  const T* weights;      // null: one each
  T* gradient;           // [count, num_features], null where not wanted
};

template <typename T>
struct PairSetup {
  PairOperation operation;
  const LabelPair<T>& labels;
  int64_t num_classes;
  int64_t num_features = 0;
  PairSide<T> lanes, streamed;
  T scale = 1, bias = 0, positive_weight = 1, negative_weight = 1;
  bool exclude_diagonal = false;
  T gradient_factor = 1;
  float* similarity = nullptr;  // kSimilarity: [streamed.count][lanes.count]
};

// What is summed over pairs.
struct PairSums {
  double loss = 0, slope = 0, slope_product = 0;
};

template <typename T>
class PairPass {
 public:
  PairPass(const PairSetup<T>& setup, const Threads& threads);
  PairSums run();

 private:
  struct Scratch;

  void lay_out_lanes(int64_t first);
  PairSums stream(int64_t first_tile, int64_t last_tile, T* lane_gradient);
  void stream_tile(Scratch& scratch, PairSums& sums, int64_t first, int64_t count, T* lane_gradient, bool add);
  const T* read_streamed(Scratch& scratch, int64_t first, int64_t count) const;
  void write_gradient(const PairSide<T>& side, const T* gradient, int64_t first, int64_t count, bool add) const;

  const PairSetup<T>& setup_;
  const Threads& threads_;
  const PairKernels<T>& kernels_;
  const int64_t lane_step_;     // lanes come in multiples of this
  const int64_t padded_width_;  // of a feature row
  // The block of lanes at hand
  int64_t first_lane_ = 0, num_lanes_ = 0, padded_lanes_ = 0;
  Aligned<T> lane_rows_;     // [padded_lanes_][padded_width_]
  Aligned<T> lane_columns_;  // [vector][feature][lane of the vector]
  Aligned<T> lane_labels_;   // kRows: [vector][class][lane of the vector]
  std::vector<T> lane_weights_;
};

extern template class PairPass<float>;
extern template class PairPass<double>;

}  // namespace adsq::cpu
