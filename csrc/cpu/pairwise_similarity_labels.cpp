#include "cpu/pairwise_similarity_labels.h"

#include <algorithm>
#include <atomic>
#include <cmath>

namespace adsq::cpu {
namespace {

constexpr int64_t kSpareItems = 64;  // vectors are read beyond the last item
constexpr int64_t kItemsATask = 4096;

void for_items(int64_t count, const Threads& threads, const std::function<void(int64_t, int64_t)>& task) {
  const int64_t tasks = std::max<int64_t>(1, (count + kItemsATask - 1) / kItemsATask);
  threads.run(tasks, [&](int64_t i) { task(i * kItemsATask, std::min(count, (i + 1) * kItemsATask)); });
}

}  // namespace

template <typename T>
LabelPair<T>::LabelPair(const LabelInput& labels_u, const LabelInput& labels_v, Similarity similarity,
                        const Threads& threads)
    : inputs_{labels_u, labels_v}, similarity_(similarity) {
  if (labels_u.are_ids) {
    pack_ids(threads);
    kind_ = PairLabels::kIds;
  } else if (pack_bits(threads)) {
    // The dot product of zeros and ones, clipped to 1, tells whether a label is shared.
    kind_ = similarity == Similarity::kCosine ? PairLabels::kCosineBits : PairLabels::kBits;
    if (similarity != Similarity::kCosine) return;
    for (Words& side : words_) {
      side.norms.assign(static_cast<size_t>(side.stride), T(0));
      for (int64_t i = 0; i < side.stride; ++i) {
        int64_t bits = 0;
        for (int64_t w = 0; w < num_words_; ++w) bits += __builtin_popcount(side.words[w * side.stride + i]);
        if (bits > 0) side.norms[i] = static_cast<T>(1 / std::sqrt(static_cast<double>(bits)));
      }
    }
  }
}

template <typename T>
void LabelPair<T>::pack_ids(const Threads& threads) {
  // Most ids fit in 32 bits; the upper halves count only where one does not.
  std::atomic<bool> are_short{true};
  for (int side = 0; side < 2; ++side) {
    const auto* ids = static_cast<const int64_t*>(inputs_[side].data);
    for_items(inputs_[side].count, threads, [&](int64_t first, int64_t last) {
      uint64_t beyond = 0;
      for (int64_t i = first; i < last; ++i) beyond |= static_cast<uint64_t>(ids[i]);
      if (beyond >> 32 != 0) are_short = false;
    });
  }
  num_words_ = are_short ? 1 : 2;
  for (int side = 0; side < 2; ++side) {
    Words& packed = words_[side];
    const auto* ids = static_cast<const int64_t*>(inputs_[side].data);
    packed.stride = inputs_[side].count + kSpareItems;
    packed.words.resize(static_cast<size_t>(packed.stride * num_words_));
    for_items(inputs_[side].count, threads, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) packed.words[i] = static_cast<uint32_t>(ids[i]);
      if (num_words_ == 1) return;
      for (int64_t i = first; i < last; ++i) packed.words[packed.stride + i] = static_cast<uint64_t>(ids[i]) >> 32;
    });
  }
}

// Whether all entries are zeros and ones; the words are complete only then.
template <typename T>
bool LabelPair<T>::pack_bits(const Threads& threads) {
  std::atomic<bool> are_bits{true};
  const int64_t num_classes = inputs_[0].num_classes;
  num_words_ = std::max<int64_t>(1, (num_classes + 31) / 32);
  for (int side = 0; side < 2 && are_bits; ++side) {
    Words& packed = words_[side];
    packed.stride = inputs_[side].count + kSpareItems;
    packed.words.resize(static_cast<size_t>(packed.stride * num_words_));
    dispatch_element(inputs_[side].element, [&](auto element) {
      const auto* rows = static_cast<const decltype(element)*>(inputs_[side].data);
      for_items(inputs_[side].count, threads, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last && are_bits; ++i) {
          const auto* row = rows + i * num_classes;
          bool bits_only = true;
          for (int64_t w = 0; w * 32 < num_classes; ++w) {
            const int64_t length = std::min<int64_t>(32, num_classes - 32 * w);
            uint32_t word = 0;
            for (int64_t c = 0; c < length; ++c) {
              const bool is_one = is_unit(row[32 * w + c]);
              bits_only &= is_one | is_zero(row[32 * w + c]);
              word |= static_cast<uint32_t>(is_one) << c;
            }
            packed.words[w * packed.stride + i] = word;
          }
          if (!bits_only) are_bits = false;
        }
      });
    });
  }
  return are_bits;
}

template <typename T>
void LabelPair<T>::read_rows(bool of_v, int64_t first, int64_t count, T* to) const {
  const int64_t num_classes = inputs_[of_v].num_classes;
  dispatch_element(inputs_[of_v].element, [&](auto element) {
    const auto* from = static_cast<const decltype(element)*>(inputs_[of_v].data) + first * num_classes;
    for (int64_t i = 0; i < count; ++i, from += num_classes, to += num_classes) {
      double squares = 0;
      for (int64_t c = 0; c < num_classes; ++c) {
        to[c] = static_cast<T>(to_number(from[c]));
        squares += static_cast<double>(to[c]) * static_cast<double>(to[c]);
      }
      if (similarity_ != Similarity::kCosine) continue;
      const double norm = std::max(std::sqrt(squares), 1e-12);
      for (int64_t c = 0; c < num_classes; ++c) to[c] = static_cast<T>(static_cast<double>(to[c]) / norm);
    }
  });
}

template <typename T>
void LabelPair<T>::to_similarity(T* products, int64_t count) const {
  if (similarity_ == Similarity::kShared) {
    for (int64_t i = 0; i < count; ++i) products[i] = products[i] > 0 ? T(1) : T(0);
  } else if (similarity_ == Similarity::kDot) {
    // In this order NaN stays NaN.
    for (int64_t i = 0; i < count; ++i) products[i] = products[i] < 0 ? T(0) : products[i] > 1 ? T(1) : products[i];
  }
}

template class LabelPair<float>;
template class LabelPair<double>;

}  // namespace adsq::cpu
