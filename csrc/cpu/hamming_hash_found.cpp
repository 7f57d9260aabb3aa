// What a search by hash tables has found so far, and in the end.
#include <algorithm>

#include "cpu/hamming_hash_query.h"

namespace adsq::cpu {
namespace {

constexpr int kMostBits = 11;
constexpr uint64_t kMostDigits = uint64_t{1} << (kMostBits + 2);  // distances have up to 13 bits

// As in hamming_direct.h: this file is compiled for any processor.
int count_bits(uint64_t x) {
  x -= (x >> 1) & 0x5555555555555555;
  x = (x & 0x3333333333333333) + ((x >> 2) & 0x3333333333333333);
  return static_cast<int>((((x + (x >> 4)) & 0x0F0F0F0F0F0F0F0F) * 0x0101010101010101) >> 56);
}

// Moves keys to where they come by (key >> shift) & mask, those with equal ones in the order they had.
void sort_by(std::vector<uint64_t>& keys, std::vector<uint64_t>& scratch, int shift, uint64_t mask) {
  uint32_t starts[kMostDigits + 1];
  std::fill_n(starts, mask + 2, 0);
  for (const uint64_t key : keys) ++starts[((key >> shift) & mask) + 1];
  for (uint64_t d = 0; d < mask; ++d) starts[d + 1] += starts[d];
  for (const uint64_t key : keys) scratch[starts[(key >> shift) & mask]++] = key;
  keys.swap(scratch);
}

// Sorts keys by code, and then by distance.
void sort_keys(std::vector<uint64_t>& keys, int64_t num_codes, int64_t largest_distance) {
  constexpr size_t kFew = 64, kMany = 4096;
  if (keys.size() < kFew) return std::sort(keys.begin(), keys.end());
  std::vector<uint64_t> scratch(keys.size());
  const int bits = keys.size() < kMany ? 8 : kMostBits;
  for (int shift = 0; (num_codes - 1) >> shift > 0; shift += bits) {
    sort_by(keys, scratch, shift, (uint64_t{1} << bits) - 1);
  }
  uint64_t mask = 0;
  while (mask < static_cast<uint64_t>(largest_distance)) mask = 2 * mask + 1;
  if (mask > 0) sort_by(keys, scratch, kIndexBits, mask);
}

}  // namespace

// Whether a step before r met a code, given how it differs from the query.
bool HashQuery::met_before(const uint64_t* differing, int32_t r) const {
  const bool one_word = database_.codes.num_words() == 1, again = r > tables();
  for (int32_t s = 0; s < (again ? tables() : std::min(r, tables())); ++s) {
    const int j = order_[s];
    const uint64_t part = one_word ? *differing & masks_[j] : part_of(differing, tables_.layout, j);
    if (again ? count_bits(part) * tables() + s < r : part == 0) return true;
  }
  return false;
}

// Takes codes that step r has found, as keys of their places in the tables.
void HashQuery::take(int32_t r, const uint64_t* keys, int64_t count) {
  taken_ += count;
  const Codes& codes = database_.codes;
  const bool lists = k_ > 0 && database_.offsets != nullptr;
  const size_t old = found_.size();
  found_.resize(old + static_cast<size_t>(count));
  uint64_t* next = found_.data() + old;
  uint64_t differing[kMaxWords];
  for (int64_t i = 0; i < count; ++i) {
    const int64_t place = index_of(keys[i]);
    if (codes.width == 8) {
      std::memcpy(differing, tables_.rows + place * 8, 8);
    } else {
      differing[codes.num_words() - 1] = 0;
      std::memcpy(differing, tables_.rows + place * codes.width, static_cast<size_t>(codes.width));
    }
    for (int w = 0; w < codes.num_words(); ++w) differing[w] ^= query_[w];
    if (lists) __builtin_prefetch(tables_.positions + place);
    *next = keys[i];
    next += !met_before(differing, r);
  }
  found_.resize(static_cast<size_t>(next - found_.data()));
  if (k_ == 0) return;
  if (lists) {
    for (size_t i = old; i < found_.size(); ++i) __builtin_prefetch(database_.offsets + code_of(found_[i]));
  }
  for (size_t i = old; i < found_.size(); ++i) {
    const int64_t rows = lists ? Expander::count(database_, code_of(found_[i])) : 1;
    counts_[static_cast<size_t>(distance_of(found_[i]))] += rows;
    if (distance_of(found_[i]) > selection_.threshold) continue;
    rows_within_ += rows;
    // Codes at the threshold are still taken: the first k of them by row are not known before all are.
    while (rows_within_ - counts_[static_cast<size_t>(selection_.threshold)] >= k_) {
      rows_within_ -= counts_[static_cast<size_t>(selection_.threshold--)];
    }
  }
}

FoundCodes HashQuery::found() {
  distances_.clear();
  codes_.clear();
  for (const uint64_t key : found_) {
    distances_.push_back(static_cast<int32_t>(distance_of(key)));
    codes_.push_back(index_of(key));
  }
  return {distances_.data(), codes_.data(), static_cast<int64_t>(codes_.size()), false};
}

// Drops what was taken before the threshold was as low as it is, and looks up which codes the others are.
void HashQuery::finish() {
  constexpr size_t kAhead = 16;
  const int64_t limit = selection_.threshold;
  found_.erase(std::remove_if(found_.begin(), found_.end(), [limit](uint64_t key) { return distance_of(key) > limit; }),
               found_.end());
  for (size_t i = 0; i < found_.size(); ++i) {
    if (i + kAhead < found_.size()) __builtin_prefetch(tables_.positions + index_of(found_[i + kAhead]));
    found_[i] = (found_[i] & ~kIndexMask) | static_cast<uint64_t>(code_of(found_[i]));
  }
  sort_keys(found_, database_.codes.count, limit);
}

}  // namespace adsq::cpu
