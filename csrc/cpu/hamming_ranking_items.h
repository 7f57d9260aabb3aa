// Items that repeat, code and labels, so that a measure counts each of them once.
#pragma once
#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "cpu/distinct_codes.h"
#include "cpu/hamming_ranking.h"

namespace adsq::cpu {

class DistinctItems {
 public:
  // Keeps items as they are where more than `share` of them are distinct. That a first part tells before the rest is
  // looked at: of more items, a smaller share is distinct.
  DistinctItems(const Codes& codes, const Labels& labels, double share) : codes_(codes), labels_(labels) {
    if (codes.count <= 1 || codes.count > INT32_MAX || share <= 0) return;
    const int64_t width = codes.width + 8 * labels.num_words, part = codes.count / kFirstPart;
    numbers_.resize(static_cast<size_t>(codes.count));
    std::vector<uint8_t> items;
    const auto distinct_share = [&](int64_t count) {
      const auto known = static_cast<int64_t>(items.size()) / width;
      items.resize(static_cast<size_t>(count * width));
      for (int64_t i = known; i < count; ++i) {
        uint8_t* item = items.data() + i * width;
        std::memcpy(item, codes.rows + i * codes.width, static_cast<size_t>(codes.width));
        if (labels.num_words == 0) continue;
        std::memcpy(item + codes.width, labels.words + i * labels.num_words, 8 * static_cast<size_t>(labels.num_words));
      }
      first_ = number_codes(items.data(), count, width, numbers_.data());
      return static_cast<double>(first_.size()) / static_cast<double>(std::max<int64_t>(1, count));
    };
    if ((part >= kSmallPart && distinct_share(part) > share) || distinct_share(codes.count) > share) {
      first_.clear();
      return;
    }
    take();
  }
  DistinctItems(const DistinctItems&) = delete;
  DistinctItems& operator=(const DistinctItems&) = delete;

  const Codes& codes() const { return codes_; }
  const Labels& labels() const { return labels_; }
  // How often each item is there; null: once.
  const int32_t* counts() const { return counts_.empty() ? nullptr : counts_.data(); }

  // The first item of those that equal the one with this number.
  int64_t first(int64_t number) const { return first_.empty() ? number : first_[static_cast<size_t>(number)]; }

  // Copies the results of first items, `size` numbers each, to those that equal them.
  template <typename T>
  void repeat(T* results, int64_t size) const {
    if (first_.empty()) return;
    for (size_t i = 0; i < numbers_.size(); ++i) {
      const int64_t from = first_[static_cast<size_t>(numbers_[i])];
      if (from != static_cast<int64_t>(i)) {
        std::copy(results + from * size, results + (from + 1) * size, results + static_cast<int64_t>(i) * size);
      }
    }
  }

 private:
  static constexpr int64_t kFirstPart = 16, kSmallPart = 256;

  void take() {
    const auto width = static_cast<size_t>(codes_.width), words = static_cast<size_t>(labels_.num_words);
    for (const int64_t item : first_) {
      const uint8_t* row = codes_.rows + item * codes_.width;
      const uint64_t* label = labels_.words + item * labels_.num_words;
      rows_.insert(rows_.end(), row, row + width);
      words_.insert(words_.end(), label, label + words);
    }
    counts_.resize(first_.size());
    for (const int32_t number : numbers_) ++counts_[static_cast<size_t>(number)];
    codes_.rows = rows_.data();
    labels_.words = words_.data();
    codes_.count = labels_.count = static_cast<int64_t>(first_.size());
  }

  Codes codes_;
  Labels labels_;
  std::vector<int64_t> first_;
  std::vector<int32_t> numbers_, counts_;
  std::vector<uint8_t> rows_;
  std::vector<uint64_t> words_;
};

// From how many queries on the database is looked through for items that repeat: that costs as much as so many
// queries do.
constexpr int64_t kQueriesForItems = 512;
constexpr double kRepeatedQueries = 0.9, kRepeatedItems = 0.5;

// What a measure that only counts reads of a database.
inline double repeated_items(int64_t num_queries) { return num_queries < kQueriesForItems ? 0 : kRepeatedItems; }

}  // namespace adsq::cpu
