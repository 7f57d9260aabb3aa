#include "cpu/distinct_codes.h"

#include <algorithm>
#include <cstring>

namespace adsq::cpu {
namespace {

constexpr int64_t kAhead = 32;  // rows whose places in the table are fetched together

uint32_t hash_of(const uint8_t* row, int64_t width) {
  uint64_t hash = static_cast<uint64_t>(width);
  for (int64_t b = 0; b < width; b += 8) {
    uint64_t word = 0;
    std::memcpy(&word, row + b, static_cast<size_t>(std::min<int64_t>(8, width - b)));
    hash = (hash ^ word) * 0x9E3779B97F4A7C15;
    hash ^= hash >> 32;
  }
  hash *= 0xD6E8FEB86659FD93;
  return static_cast<uint32_t>(hash >> 32);
}

// A table of open addresses. A place holds hash << 32 | number of the code + 1, and 0 where it is free.
class CodeTable {
 public:
  CodeTable(const uint8_t* rows, int64_t width) : rows_(rows), width_(width), places_(1 << 10) {}

  void fetch(uint32_t hash) const { __builtin_prefetch(places_.data() + (hash & mask())); }

  // Returns the number of a row's code.
  int32_t number(int64_t row, uint32_t hash) {
    for (size_t at = hash & mask();; at = (at + 1) & mask()) {
      const uint64_t place = places_[at];
      if (place == 0) {
        places_[at] = uint64_t{hash} << 32 | (first_.size() + 1);
        first_.push_back(row);
        if (2 * first_.size() > places_.size()) grow();
        return static_cast<int32_t>(first_.size() - 1);
      }
      if (static_cast<uint32_t>(place >> 32) != hash) continue;
      const auto number = static_cast<int32_t>((place & UINT32_MAX) - 1);
      const int64_t other = first_[static_cast<size_t>(number)];
      if (std::memcmp(rows_ + other * width_, rows_ + row * width_, static_cast<size_t>(width_)) == 0) return number;
    }
  }

  std::vector<int64_t> take_first() { return std::move(first_); }

 private:
  size_t mask() const { return places_.size() - 1; }

  void grow() {
    std::vector<uint64_t> old(4 * places_.size());
    old.swap(places_);
    for (const uint64_t place : old) {
      if (place == 0) continue;
      size_t at = (place >> 32) & mask();
      while (places_[at] != 0) at = (at + 1) & mask();
      places_[at] = place;
    }
  }

  const uint8_t* rows_;
  const int64_t width_;
  std::vector<uint64_t> places_;
  std::vector<int64_t> first_;
};

}  // namespace

std::vector<int64_t> number_codes(const uint8_t* rows, int64_t count, int64_t width, int32_t* numbers) {
  CodeTable table(rows, width);
  uint32_t hashes[kAhead];
  for (int64_t first = 0; first < count; first += kAhead) {
    const int64_t size = std::min(kAhead, count - first);
    for (int64_t i = 0; i < size; ++i) {
      hashes[i] = hash_of(rows + (first + i) * width, width);
      table.fetch(hashes[i]);
    }
    for (int64_t i = 0; i < size; ++i) numbers[first + i] = table.number(first + i, hashes[i]);
  }
  return table.take_first();
}

void list_rows(const int32_t* numbers, int64_t count, int64_t num_codes, int32_t* offsets, int32_t* rows) {
  // Each code's entry is first the end of its list, and then moves with the rows that are put before it.
  std::fill(offsets, offsets + num_codes + 1, 0);
  for (int64_t i = 0; i < count; ++i) ++offsets[numbers[i]];
  int32_t end = 0;
  for (int64_t c = 0; c <= num_codes; ++c) offsets[c] = end += offsets[c];
  for (int64_t i = count; i-- > 0;) rows[--offsets[numbers[i]]] = static_cast<int32_t>(i);
}

}  // namespace adsq::cpu
