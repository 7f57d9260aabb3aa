#include "cpu/pairwise_similarity_pass.h"

#include <algorithm>

namespace adsq::cpu {
namespace {

constexpr int64_t kTileLanes = 256, kTileStreamed = 64;
// Lanes laid out at a time: what bounds the memory where both sets are large.
constexpr int64_t kLanesAtATime = 4096;
// A part of the streamed items has at least so many pairs and tiles, so that a thread is worth waking and its gradient
// worth adding; and there are not more parts than would keep many processors busy.
constexpr int64_t kPairsAPart = 65536, kTilesAPart = 2, kMostParts = 64;
// Numbers that a thread adds up at a time.
constexpr int64_t kSumsATask = 1 << 15;
// Gradients of parts wait to be added up in at most so much memory, or in one for each thread.
constexpr int64_t kWaitingBytes = 1 << 20;

int64_t round_up(int64_t a, int64_t step) { return (a + step - 1) / step * step; }

// Rows [count][width] with `stride` between them -> vectors of columns, [vector][column][lane].
template <typename T>
void turn(const T* rows, int64_t stride, int64_t count, int64_t width, int64_t lanes, T* columns) {
  for (int64_t i = 0; i < count; ++i) {
    T* to = columns + i / lanes * width * lanes + i % lanes;
    for (int64_t k = 0; k < width; ++k) to[k * lanes] = rows[i * stride + k];
  }
}

}  // namespace

template <typename T>
struct PairPass<T>::Scratch {
  Aligned<T> values, similarity, rows, gradient, labels;
  T positive_weights[kTileStreamed], negative_weights[kTileStreamed];
};

template <typename T>
PairPass<T>::PairPass(const PairSetup<T>& setup, const Threads& threads)
    : setup_(setup),
      threads_(threads),
      kernels_(pair_kernels<T>()),
      lane_step_(std::max(kernels_.lanes, kernels_.row_step)),
      padded_width_(round_up(setup.num_features, kernels_.lanes)) {}

template <typename T>
PairSums PairPass<T>::run() {
  PairSums sums;
  const int64_t tiles = (setup_.streamed.count + kTileStreamed - 1) / kTileStreamed;
  for (first_lane_ = 0; first_lane_ < setup_.lanes.count && tiles > 0; first_lane_ += num_lanes_) {
    lay_out_lanes(first_lane_);
    const int64_t tiles_a_part = std::max(
        {kTilesAPart, (tiles + kMostParts - 1) / kMostParts, 1 + (kPairsAPart - 1) / (kTileStreamed * num_lanes_)});
    const int64_t parts = (tiles + tiles_a_part - 1) / tiles_a_part;
    const int64_t gradient_size = setup_.lanes.gradient != nullptr ? padded_lanes_ * padded_width_ : 0;
    const int64_t round = std::clamp<int64_t>(kWaitingBytes / static_cast<int64_t>(gradient_size * sizeof(T) + 1),
                                              threads_.count, std::max(threads_.count, parts));
    Aligned<T> waiting = aligned_array<T>(static_cast<size_t>(std::min(round, parts) * gradient_size));
    Aligned<T> total = aligned_array<T>(static_cast<size_t>(gradient_size));
    std::vector<PairSums> part_sums(static_cast<size_t>(parts));
    // The order of additions is that of the parts, whatever the threads.
    for (int64_t first = 0; first < parts; first += round) {
      const int64_t count = std::min(round, parts - first);
      threads_.run(count, [&](int64_t i) {
        const int64_t part = first + i;
        T* gradient = gradient_size > 0 ? waiting.get() + i * gradient_size : nullptr;
        part_sums[part] = stream(part * tiles_a_part, std::min(tiles, (part + 1) * tiles_a_part), gradient);
      });
      if (gradient_size == 0) continue;
      threads_.run((gradient_size + kSumsATask - 1) / kSumsATask, [&](int64_t task) {
        const int64_t start = task * kSumsATask, end = std::min(gradient_size, start + kSumsATask);
        for (int64_t i = 0; i < count; ++i) {
          const T* gradient = waiting.get() + i * gradient_size;
          if (first + i == 0) {
            std::copy(gradient + start, gradient + end, total.get() + start);
          } else {
            for (int64_t k = start; k < end; ++k) total[k] += gradient[k];
          }
        }
      });
    }
    for (const PairSums& part : part_sums) {
      sums.loss += part.loss;
      sums.slope += part.slope;
      sums.slope_product += part.slope_product;
    }
    if (gradient_size > 0) write_gradient(setup_.lanes, total.get(), first_lane_, num_lanes_, false);
  }
  return sums;
}

template <typename T>
void PairPass<T>::lay_out_lanes(int64_t first) {
  num_lanes_ = std::min(kLanesAtATime, setup_.lanes.count - first);
  padded_lanes_ = round_up(num_lanes_, lane_step_);
  lane_weights_.assign(static_cast<size_t>(padded_lanes_), T(0));
  for (int64_t i = 0; i < num_lanes_; ++i) {
    lane_weights_[i] = setup_.lanes.weights != nullptr ? setup_.lanes.weights[first + i] : T(1);
  }
  if (setup_.num_features > 0) {
    const FeatureRows& features = setup_.lanes.features;
    const size_t size = static_cast<size_t>(padded_lanes_ * padded_width_);
    lane_rows_ = aligned_array<T>(size);
    lane_columns_ = aligned_array<T>(size);
    const auto* from = static_cast<const char*>(features.data) + first * features.stride * size_of(features.element);
    kernels_.convert(features.element, from, features.stride, num_lanes_, setup_.num_features, lane_rows_.get(),
                     padded_width_);
    std::fill(lane_rows_.get() + num_lanes_ * padded_width_, lane_rows_.get() + size, T(0));
    turn(lane_rows_.get(), padded_width_, padded_lanes_, setup_.num_features, kernels_.lanes, lane_columns_.get());
  }
  if (setup_.labels.kind() == PairLabels::kRows) {
    const size_t size = static_cast<size_t>(padded_lanes_ * setup_.num_classes);
    const Aligned<T> rows = aligned_array<T>(size);
    setup_.labels.read_rows(setup_.lanes.is_v, first, num_lanes_, rows.get());
    std::fill(rows.get() + num_lanes_ * setup_.num_classes, rows.get() + size, T(0));
    lane_labels_ = aligned_array<T>(size);
    turn(rows.get(), setup_.num_classes, padded_lanes_, setup_.num_classes, kernels_.lanes, lane_labels_.get());
  }
}

template <typename T>
PairSums PairPass<T>::stream(int64_t first_tile, int64_t last_tile, T* lane_gradient) {
  PairSums sums;
  Scratch scratch;
  const int64_t rows = std::min(kTileStreamed, round_up(setup_.streamed.count, kernels_.row_step));
  const int64_t tile_size = rows * std::min(kTileLanes, padded_lanes_);
  scratch.values = aligned_array<T>(static_cast<size_t>(tile_size));
  scratch.rows = aligned_array<T>(static_cast<size_t>(rows * padded_width_));
  scratch.gradient = aligned_array<T>(static_cast<size_t>(rows * padded_width_));
  if (setup_.labels.kind() == PairLabels::kRows) {
    scratch.similarity = aligned_array<T>(static_cast<size_t>(tile_size));
    scratch.labels = aligned_array<T>(static_cast<size_t>(rows * setup_.num_classes));
  }
  if (setup_.similarity != nullptr && first_lane_ == 0) {
    const int64_t first = first_tile * kTileStreamed, last = std::min(setup_.streamed.count, last_tile * kTileStreamed);
    provide_pages(setup_.similarity + first * setup_.lanes.count,
                  (last - first) * setup_.lanes.count * static_cast<int64_t>(sizeof(float)));
  }
  for (int64_t tile = first_tile; tile < last_tile; ++tile) {
    const int64_t first = tile * kTileStreamed, count = std::min(kTileStreamed, setup_.streamed.count - first);
    stream_tile(scratch, sums, first, count, lane_gradient, tile > first_tile);
  }
  return sums;
}

// The feature rows of a tile, where they lie if that can be, else a copy with zeros after the last.
template <typename T>
const T* PairPass<T>::read_streamed(Scratch& scratch, int64_t first, int64_t count) const {
  const FeatureRows& features = setup_.streamed.features;
  const auto* from = static_cast<const char*>(features.data) + first * features.stride * size_of(features.element);
  const bool is_ready = size_of(features.element) == sizeof(T) && features.stride == padded_width_ &&
                        setup_.num_features == padded_width_ && count % kernels_.row_step == 0;
  if (is_ready) return reinterpret_cast<const T*>(from);
  kernels_.convert(features.element, from, features.stride, count, setup_.num_features, scratch.rows.get(),
                   padded_width_);
  const int64_t padded = round_up(count, kernels_.row_step);
  std::fill(scratch.rows.get() + count * padded_width_, scratch.rows.get() + padded * padded_width_, T(0));
  return scratch.rows.get();
}

template <typename T>
void PairPass<T>::stream_tile(Scratch& scratch, PairSums& sums, int64_t first, int64_t count, T* lane_gradient,
                              bool add) {
  const int64_t padded_count = round_up(count, kernels_.row_step), lanes = kernels_.lanes, width = padded_width_;
  const bool is_loss = setup_.operation == PairOperation::kLikelihood || setup_.operation == PairOperation::kSquared;
  const bool has_rows = setup_.labels.kind() == PairLabels::kRows;
  const T* rows = setup_.num_features > 0 ? read_streamed(scratch, first, count) : nullptr;
  for (int64_t j = 0; j < count; ++j) {
    const T weight = setup_.streamed.weights != nullptr ? setup_.streamed.weights[first + j] : T(1);
    scratch.positive_weights[j] = setup_.positive_weight * weight;
    scratch.negative_weights[j] = setup_.negative_weight * weight;
  }
  if (has_rows) {
    setup_.labels.read_rows(setup_.streamed.is_v, first, count, scratch.labels.get());
    std::fill(scratch.labels.get() + count * setup_.num_classes,
              scratch.labels.get() + padded_count * setup_.num_classes, T(0));
  }
  const auto& lane_words = setup_.labels.words(setup_.lanes.is_v);
  const auto& streamed_words = setup_.labels.words(setup_.streamed.is_v);
  const bool has_norms = setup_.labels.kind() == PairLabels::kCosineBits;
  PairTile<T> tile{};
  tile.values = scratch.values.get();
  tile.num_streamed = count;
  tile.lane_words_stride = lane_words.stride;
  tile.streamed_words_stride = streamed_words.stride;
  if (!has_rows) tile.streamed_words = streamed_words.words.data() + first;
  if (has_norms) tile.streamed_norms = streamed_words.norms.data() + first;
  tile.num_words = setup_.labels.num_words();
  tile.similarity = scratch.similarity.get();
  tile.positive_weights = scratch.positive_weights;
  tile.negative_weights = scratch.negative_weights;
  tile.scale = setup_.scale;
  tile.bias = setup_.bias;
  const auto pairs = kernels_.pairs[static_cast<int>(setup_.operation)][static_cast<int>(setup_.labels.kind())];
  for (int64_t lane = 0; lane < num_lanes_; lane += kTileLanes) {
    const int64_t in_use = std::min(kTileLanes, num_lanes_ - lane), stride = round_up(in_use, lane_step_);
    tile.stride = stride;
    if (!has_rows) tile.lane_words = lane_words.words.data() + first_lane_ + lane;
    if (has_norms) tile.lane_norms = lane_words.norms.data() + first_lane_ + lane;
    tile.lane_weights = lane_weights_.data() + lane;
    tile.diagonal = setup_.exclude_diagonal ? first - first_lane_ - lane : kNoDiagonal;
    if (has_rows) {
      kernels_.multiply(scratch.labels.get(), setup_.num_classes, 1, lane_labels_.get() + lane * setup_.num_classes,
                        setup_.num_classes * lanes, lanes, setup_.num_classes, scratch.similarity.get(), stride,
                        padded_count, stride / lanes, false);
      setup_.labels.to_similarity(scratch.similarity.get(), count * stride);
    }
    if (is_loss) {
      kernels_.multiply(rows, width, 1, lane_columns_.get() + lane * setup_.num_features, setup_.num_features * lanes,
                        lanes, setup_.num_features, tile.values, stride, padded_count, stride / lanes, false);
    }
    pairs(tile);
    if (lane_gradient != nullptr) {
      kernels_.multiply(tile.values, 1, stride, rows, lanes, width, count, lane_gradient + lane * width, width, stride,
                        width / lanes, add);
    }
    if (setup_.streamed.gradient != nullptr) {
      kernels_.multiply(tile.values, stride, 1, lane_rows_.get() + lane * width, lanes, width, in_use,
                        scratch.gradient.get(), width, padded_count, width / lanes, lane > 0);
    }
    for (int64_t j = 0; setup_.similarity != nullptr && j < count; ++j) {
      float* to = setup_.similarity + (first + j) * setup_.lanes.count + first_lane_ + lane;
      std::copy(tile.values + j * stride, tile.values + j * stride + in_use, to);
    }
  }
  if (setup_.streamed.gradient != nullptr) {
    write_gradient(setup_.streamed, scratch.gradient.get(), first, count, first_lane_ > 0);
  }
  sums.loss += tile.loss;
  sums.slope += tile.slope_sum;
  sums.slope_product += tile.slope_product_sum;
}

template <typename T>
void PairPass<T>::write_gradient(const PairSide<T>& side, const T* gradient, int64_t first, int64_t count,
                                 bool add) const {
  for (int64_t i = 0; i < count; ++i) {
    const T* from = gradient + i * padded_width_;
    T* to = side.gradient + (first + i) * setup_.num_features;
    if (add) {
      for (int64_t k = 0; k < setup_.num_features; ++k) to[k] += from[k] * setup_.gradient_factor;
    } else {
      for (int64_t k = 0; k < setup_.num_features; ++k) to[k] = from[k] * setup_.gradient_factor;
    }
  }
}

template class PairPass<float>;
template class PairPass<double>;

}  // namespace adsq::cpu
