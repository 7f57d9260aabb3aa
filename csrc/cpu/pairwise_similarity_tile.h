// The kernels of pairwise_similarity_kernels.h, written once on the vectors of vectors.h, in an unnamed namespace as
// they are.
#pragma once
#include "cpu/pairwise_similarity_kernels.h"
#include "cpu/vector_math.h"

namespace adsq::cpu {
namespace {

// Products that are added up one after the other; longer sums are sums of these, which keeps rounding errors small.
constexpr int64_t kStepsASum = 64;

// A block of kRows x kVectors sums stays in registers.
template <class V, int kRows, int kVectors>
inline void multiply_block(const typename V::Scalar* a, int64_t a_row, int64_t a_step, const typename V::Scalar* b,
                           int64_t b_vector, int64_t b_step, int64_t steps, typename V::Scalar* c, int64_t c_row,
                           bool add) {
  for (int64_t first = 0; first == 0 || first < steps; first += kStepsASum) {
    const int64_t last = first + kStepsASum < steps ? first + kStepsASum : steps;
    typename V::Vector sums[kRows][kVectors] = {};
    for (int64_t k = first; k < last; ++k) {
      typename V::Vector row[kVectors];
      for (int v = 0; v < kVectors; ++v) row[v] = V::load(b + v * b_vector + k * b_step);
      for (int i = 0; i < kRows; ++i) {
        const typename V::Vector factor = V::set(a[i * a_row + k * a_step]);
        for (int v = 0; v < kVectors; ++v) sums[i][v] += factor * row[v];
      }
    }
    for (int i = 0; i < kRows; ++i) {
      for (int v = 0; v < kVectors; ++v) {
        auto* to = c + i * c_row + v * V::kLanes;
        V::store(to, add || first > 0 ? V::load(to) + sums[i][v] : sums[i][v]);
      }
    }
  }
}

template <class V>
void multiply(const typename V::Scalar* a, int64_t a_row, int64_t a_step, const typename V::Scalar* b, int64_t b_vector,
              int64_t b_step, int64_t steps, typename V::Scalar* c, int64_t c_row, int64_t rows, int64_t vectors,
              bool add) {
  // Three vectors at a time, or less so that none is left alone.
  const int64_t groups = (vectors + 2) / 3;
  for (int64_t group = 0; group < groups; ++group) {
    const int64_t first = group * vectors / groups, count = (group + 1) * vectors / groups - first;
    const auto* b_first = b + first * b_vector;
    for (int64_t i = 0; i < rows; i += V::kRows) {
      const auto* a_first = a + i * a_row;
      auto* c_first = c + i * c_row + first * V::kLanes;
      if (count == 3) {
        multiply_block<V, V::kRows, 3>(a_first, a_row, a_step, b_first, b_vector, b_step, steps, c_first, c_row, add);
      } else if (count == 2) {
        multiply_block<V, V::kRows, 2>(a_first, a_row, a_step, b_first, b_vector, b_step, steps, c_first, c_row, add);
      } else {
        multiply_block<V, V::kRows, 1>(a_first, a_row, a_step, b_first, b_vector, b_step, steps, c_first, c_row, add);
      }
    }
  }
}

template <class V, typename From>
void convert_rows(const From* from, int64_t from_stride, int64_t rows, int64_t columns, typename V::Scalar* to,
                  int64_t to_stride) {
  for (int64_t i = 0; i < rows; ++i, from += from_stride, to += to_stride) {
    int64_t k = 0;
    for (; k + V::kLanes <= columns; k += V::kLanes) V::store(to + k, V::load(from + k));
    if (k < columns) {
      From rest[V::kLanes] = {};
      __builtin_memcpy(rest, from + k, static_cast<size_t>(columns - k) * sizeof(From));
      V::store(to + k, V::load(rest));
      k += V::kLanes;
    }
    for (; k < to_stride; ++k) to[k] = 0;
  }
}

template <class V>
void convert(Element element, const void* from, int64_t from_stride, int64_t rows, int64_t columns,
             typename V::Scalar* to, int64_t to_stride) {
  if constexpr (sizeof(typename V::Scalar) == 8) {
    convert_rows<V>(static_cast<const double*>(from), from_stride, rows, columns, to, to_stride);
  } else if (element == Element::kFloat32) {
    convert_rows<V>(static_cast<const float*>(from), from_stride, rows, columns, to, to_stride);
  } else if (element == Element::kBFloat16) {
    convert_rows<V>(static_cast<const BFloat16*>(from), from_stride, rows, columns, to, to_stride);
  } else {
    convert_rows<V>(static_cast<const Float16*>(from), from_stride, rows, columns, to, to_stride);
  }
}

// The labels of one vector of lanes, compared with streamed items: a mask where S is 0 or 1, else S itself.
template <class V, PairLabels kLabels>
struct LaneLabels {
  using Tile = PairTile<typename V::Scalar>;
  using Vector = typename V::Vector;
  static constexpr bool kBinary = kLabels == PairLabels::kIds || kLabels == PairLabels::kBits;
  const Tile& tile;
  const uint32_t* words;
  typename V::Words first_word;
  int64_t lane;

  ADSQ_INLINE LaneLabels(const Tile& the_tile, int64_t first_lane) : tile(the_tile), lane(first_lane) {
    if constexpr (kLabels == PairLabels::kRows) return;
    words = tile.lane_words + lane;
    first_word = V::load_words(words);
  }

  ADSQ_INLINE typename V::Words word(int64_t w) const {
    return w == 0 ? first_word : V::load_words(words + w * tile.lane_words_stride);
  }

  static ADSQ_INLINE typename V::Mask match(typename V::Words word, uint32_t other) {
    if constexpr (kLabels == PairLabels::kIds) return V::mask_of(word == other);
    return V::mask_of((word & other) != 0);
  }

  ADSQ_INLINE typename V::Mask similar(int64_t j) const {
    const uint32_t* other = tile.streamed_words + j;
    typename V::Mask mask = match(first_word, *other);
    for (int64_t w = 1; w < tile.num_words; ++w) {
      const auto more = match(word(w), other[w * tile.streamed_words_stride]);
      mask = kLabels == PairLabels::kIds ? mask & more : mask | more;
    }
    return mask;
  }

  ADSQ_INLINE Vector similarity(int64_t j) const {
    if constexpr (kBinary) {
      return similar(j) ? V::set(1) : Vector{};
    } else if constexpr (kLabels == PairLabels::kRows) {
      return V::load(tile.similarity + j * tile.stride + lane);
    } else {
      const uint32_t* other = tile.streamed_words + j;
      typename V::Words count = {};
      for (int64_t w = 0; w < tile.num_words; ++w) {
        count += count_bits(word(w) & other[w * tile.streamed_words_stride]);
      }
      return V::to_vector(count) * (V::load(tile.lane_norms + lane) * tile.streamed_norms[j]);
    }
  }
};

// The sum of the lanes, in double.
template <class V>
ADSQ_INLINE double sum_of_lanes(typename V::Vector a) {
  double sum = 0;
  for (int i = 0; i < V::kLanes; ++i) sum += static_cast<double>(a[i]);
  return sum;
}

template <class V, PairOperation kOperation, PairLabels kLabels>
void pair_losses(PairTile<typename V::Scalar>& tile) {
  using Vector = typename V::Vector;
  const Vector scale = V::set(tile.scale), bias = V::set(tile.bias);
  Vector total_losses = {}, total_slopes = {}, total_products = {};
  for (int64_t lane = 0; lane < tile.stride; lane += V::kLanes) {
    const LaneLabels<V, kLabels> labels(tile, lane);
    const Vector lane_weights = V::load(tile.lane_weights + lane);
    Vector losses = {}, slopes = {}, products = {};
    for (int64_t j = 0; j < tile.num_streamed; ++j) {
      auto* value = tile.values + j * tile.stride + lane;
      const Vector product = V::load(value), x = scale * product + bias;
      const Vector positive = V::set(tile.positive_weights[j]), negative = V::set(tile.negative_weights[j]);
      Vector loss, slope, weight;
      if constexpr (LaneLabels<V, kLabels>::kBinary) {
        const auto similar = labels.similar(j);
        weight = similar ? positive : negative;
        if constexpr (kOperation == PairOperation::kLikelihood) {
          // softplus(x) - x = softplus(-x), and sigmoid(x) - 1 = -sigmoid(-x)
          const Softplus<V> softplus(V::negate_where(similar, x));
          loss = softplus.value;
          slope = V::negate_where(similar, softplus.slope);
        } else {
          loss = x - (similar ? V::set(1) : V::set(-1));
        }
      } else {
        const Vector s = labels.similarity(j);
        weight = (positive - negative) * s + negative;
        if constexpr (kOperation == PairOperation::kLikelihood) {
          const Softplus<V> softplus(x);
          loss = softplus.value - s * x;
          slope = softplus.slope - s;
        } else {
          loss = (x + 1) - (s + s);
        }
      }
      if constexpr (kOperation == PairOperation::kSquared) {
        slope = loss + loss;
        loss = loss * loss;
      }
      const int64_t excluded = j + tile.diagonal - lane;
      if (static_cast<uint64_t>(excluded) < static_cast<uint64_t>(V::kLanes)) weight[excluded] = 0;
      losses += weight * loss;
      slope *= weight;
      slopes += slope;
      products += slope * product;
      V::store(value, slope * lane_weights);
    }
    total_losses += losses * lane_weights;
    total_slopes += slopes * lane_weights;
    total_products += products * lane_weights;
  }
  tile.loss += sum_of_lanes<V>(total_losses);
  tile.slope_sum += sum_of_lanes<V>(total_slopes);
  tile.slope_product_sum += sum_of_lanes<V>(total_products);
}

template <class V, PairOperation kOperation, PairLabels kLabels>
void pair_similarities(PairTile<typename V::Scalar>& tile) {
  typename V::Vector total = {};
  for (int64_t lane = 0; lane < tile.stride; lane += V::kLanes) {
    const LaneLabels<V, kLabels> labels(tile, lane);
    typename V::Vector sums = {};  // of kSum
    for (int64_t j = 0; j < tile.num_streamed; ++j) {
      const auto s = labels.similarity(j);
      if constexpr (kOperation == PairOperation::kSum) {
        sums += tile.positive_weights[j] * s;
      } else {
        V::store(tile.values + j * tile.stride + lane, s);
      }
    }
    if constexpr (kOperation == PairOperation::kSum) total += sums * V::load(tile.lane_weights + lane);
  }
  if constexpr (kOperation == PairOperation::kSum) tile.loss += sum_of_lanes<V>(total);
}

template <class V>
constexpr PairKernels<typename V::Scalar> pair_kernels_of() {
  using Operation = PairOperation;
  using Labels = PairLabels;
  return {
      V::kLanes,
      V::kRows,
      multiply<V>,
      convert<V>,
      {
          {pair_losses<V, Operation::kLikelihood, Labels::kIds>, pair_losses<V, Operation::kLikelihood, Labels::kBits>,
           pair_losses<V, Operation::kLikelihood, Labels::kCosineBits>,
           pair_losses<V, Operation::kLikelihood, Labels::kRows>},
          {pair_losses<V, Operation::kSquared, Labels::kIds>, pair_losses<V, Operation::kSquared, Labels::kBits>,
           pair_losses<V, Operation::kSquared, Labels::kCosineBits>,
           pair_losses<V, Operation::kSquared, Labels::kRows>},
          {pair_similarities<V, Operation::kSimilarity, Labels::kIds>,
           pair_similarities<V, Operation::kSimilarity, Labels::kBits>,
           pair_similarities<V, Operation::kSimilarity, Labels::kCosineBits>,
           pair_similarities<V, Operation::kSimilarity, Labels::kRows>},
          {pair_similarities<V, Operation::kSum, Labels::kIds>, pair_similarities<V, Operation::kSum, Labels::kBits>,
           pair_similarities<V, Operation::kSum, Labels::kCosineBits>,
           pair_similarities<V, Operation::kSum, Labels::kRows>},
      },
  };
}

}  // namespace
}  // namespace adsq::cpu
