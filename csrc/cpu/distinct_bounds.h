// How far the k nearest rows are at most, from codes that have k rows by themselves.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "cpu/distinct_codes.h"
#include "cpu/distinct_expand.h"
#include "cpu/memory.h"

namespace adsq::cpu {

// A few codes, in whole vectors, and which of them is the nearest to a query.
class FewCodes {
 public:
  static constexpr int64_t kMost = 256;

  FewCodes() = default;
  // Codes in rows without gaps, at most kMost.
  FewCodes(const uint8_t* rows, int64_t count, int64_t width)
      : count_(count),
        room_((count + kVectors - 1) / kVectors * kVectors),
        num_words_(static_cast<int>((width + 7) / 8)) {
    if (count == 0) return;
    words_ = aligned_array<uint64_t>(static_cast<size_t>(room_ * num_words_));
    kernels_ = &scan_kernels();
    kernels_->widen(rows, width, count, words_.get(), room_);
    for (int w = 0; w < num_words_; ++w) {
      uint64_t* own = words_.get() + w * room_;
      std::fill(own + count, own + room_, own[0]);
    }
  }

  bool empty() const { return count_ == 0; }

  struct Nearest {
    int64_t place;
    int32_t distance;
  };
  // Of a query given as words; the first of several. There is a code.
  Nearest nearest(const uint64_t* query) const {
    uint16_t distances[kMost];
    kernels_->distances({words_.get(), room_, room_, 0, nullptr}, query, num_words_, distances);
    // Signed, since any processor has their minimum as an instruction.
    int16_t least = INT16_MAX;
    for (int64_t i = 0; i < room_; ++i) least = std::min(least, static_cast<int16_t>(distances[i]));
    return {std::find(distances, distances + room_, least) - distances, least};
  }

 private:
  static constexpr int64_t kVectors = 64;

  const ScanKernels* kernels_ = nullptr;
  int64_t count_ = 0, room_ = 0;
  int num_words_ = 0;
  Aligned<uint64_t> words_{};  // [word][room]; the last ones repeat a code
};

// The codes that have k rows, or the most frequent of these. They are numbered by their first rows, so those with many
// rows are among the first ones, unless rows are sorted.
inline std::vector<int64_t> codes_with_rows(const DistinctCodes& database, int64_t k) {
  constexpr int64_t kFirst = 8192;
  std::vector<int64_t> codes;
  const int32_t* offsets = database.offsets;
  for (int64_t c = 0; c < std::min(kFirst, database.codes.count); ++c) {
    if (int64_t{offsets[c + 1]} - offsets[c] >= k && Expander::count(database, c) >= k) codes.push_back(c);
  }
  if (codes.size() > FewCodes::kMost) {
    const auto last = codes.begin() + FewCodes::kMost;
    std::nth_element(codes.begin(), last, codes.end(),
                     [&](int64_t a, int64_t b) { return Expander::count(database, a) > Expander::count(database, b); });
    codes.erase(last, codes.end());
  }
  return codes;
}

}  // namespace adsq::cpu
