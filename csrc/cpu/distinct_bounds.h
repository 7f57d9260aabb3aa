// How far the k nearest rows are at most, from codes that have k rows by themselves.
#pragma once
#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu/distinct_codes.h"
#include "cpu/distinct_expand.h"
#include "cpu/memory.h"

namespace adsq::cpu {

class Bounds {
 public:
  // Codes are numbered by their first rows, so those with many rows are among the first ones, unless rows are sorted.
  Bounds(const DistinctCodes& database, int64_t k) : kernels_(scan_kernels()), codes_(database.codes) {
    const int64_t first = std::min(kFirst, codes_.count);
    for (int64_t c = 0; c < first; ++c) {
      if (Expander::count(database, c) >= k) frequent_.push_back(c);
    }
    if (frequent_.empty()) return;
    if (frequent_.size() > kMost) {
      const auto last = frequent_.begin() + kMost;
      std::nth_element(frequent_.begin(), last, frequent_.end(), [&](int64_t a, int64_t b) {
        return Expander::count(database, a) > Expander::count(database, b);
      });
      frequent_.erase(last, frequent_.end());
    }
    // Whole vectors: the last ones repeat a code.
    const auto count = static_cast<int64_t>(frequent_.size());
    room_ = (count + kVectors - 1) / kVectors * kVectors;
    words_ = aligned_array<uint64_t>(static_cast<size_t>(room_ * codes_.num_words()));
    std::vector<uint8_t> rows;
    for (int64_t i = 0; i < room_; ++i) {
      const uint8_t* row = codes_.rows + frequent_[static_cast<size_t>(std::min(i, count - 1))] * codes_.width;
      rows.insert(rows.end(), row, row + codes_.width);
    }
    kernels_.widen(rows.data(), codes_.width, room_, words_.get(), room_);
  }

  bool empty() const { return frequent_.empty(); }

  // The nearest of these codes to a query, given as words, and how far it is.
  struct Nearest {
    int64_t code;
    int32_t distance;
  };
  Nearest nearest(const uint64_t* query) const {
    uint16_t distances[kMost];
    kernels_.distances({words_.get(), room_, room_, 0, nullptr}, query, codes_.num_words(), distances);
    // Signed, since any processor has their minimum as an instruction.
    int16_t least = INT16_MAX;
    for (int64_t i = 0; i < room_; ++i) least = std::min(least, static_cast<int16_t>(distances[i]));
    const auto place = std::find(distances, distances + room_, least) - distances;
    return {frequent_[std::min(static_cast<size_t>(place), frequent_.size() - 1)], least};
  }

 private:
  static constexpr int64_t kFirst = 8192, kVectors = 64;
  static constexpr size_t kMost = 256;

  const ScanKernels& kernels_;
  const Codes& codes_;
  std::vector<int64_t> frequent_;
  int64_t room_ = 0;
  Aligned<uint64_t> words_;  // [word][room]
};

}  // namespace adsq::cpu
