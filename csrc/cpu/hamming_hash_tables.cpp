// The tables of some codes: how they are laid out, and making them.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <stdexcept>

#include "cpu/distinct_expand.h"
#include "cpu/hamming_hash.h"
#include "cpu/hamming_hash_query.h"

namespace adsq::cpu {
namespace {

constexpr int kMinBits = 4;
constexpr int64_t kLeastSample = 256, kMostSample = 1 << 15, kSampleShare = 128;

}  // namespace

HashLayout::HashLayout(int64_t width, int64_t count) {
  const auto all = static_cast<int>(8 * width);
  const double wanted = std::log2(static_cast<double>(std::max<int64_t>(2, count)));
  const double bits = std::clamp<double>(wanted, kMinBits, kMaxPartBits);
  num_tables = std::clamp(static_cast<int>(std::ceil(all / bits)), 1, kMaxTables);
  if (all > num_tables * kMaxPartBits) throw std::invalid_argument("codes: too long for hash tables");
  for (int j = 0; j <= num_tables; ++j) starts[j] = all * j / num_tables;
}

int64_t HashLayout::first_offset(int table) const {
  int64_t first = 0;
  for (int j = 0; j < table; ++j) first += (int64_t{1} << bits(j)) + 1;
  return first;
}

int64_t HashLayout::sample_size(int64_t count) {
  return std::min(count, std::clamp(count / kSampleShare, kLeastSample, kMostSample));
}

void make_hash_tables(const DistinctCodes& database, const HashLayout& layout, int32_t* offsets, int32_t* positions,
                      uint8_t* rows, uint8_t* sample) {
  const Codes& codes = database.codes;
  // Codes with many rows first in each bucket: soon as many rows are known as are wanted, and how far they are.
  std::vector<int32_t> order(database.offsets == nullptr ? 0 : static_cast<size_t>(codes.count));
  std::vector<int32_t> parts(static_cast<size_t>(codes.count));
  if (!order.empty()) {
    const auto rows_of = [&](int32_t c) { return Expander::count(database, c); };
    std::iota(order.begin(), order.end(), 0);
    const auto single = std::stable_partition(order.begin(), order.end(), [&](int32_t c) { return rows_of(c) > 1; });
    std::stable_sort(order.begin(), single, [&](int32_t a, int32_t b) { return rows_of(a) > rows_of(b); });
  }
  const auto code = [&](int64_t i) { return order.empty() ? i : order[static_cast<size_t>(i)]; };
  uint64_t words[kMaxWords];
  for (int j = 0; j < layout.num_tables; ++j) {
    for (int64_t i = 0; i < codes.count; ++i) {
      words[codes.num_words() - 1] = 0;
      std::memcpy(words, codes.rows + code(i) * codes.width, static_cast<size_t>(codes.width));
      parts[static_cast<size_t>(i)] = static_cast<int32_t>(part_of(words, layout, j));
    }
    int32_t* own = positions + j * codes.count;
    list_rows(parts.data(), codes.count, int64_t{1} << layout.bits(j), offsets + layout.first_offset(j), own);
    uint8_t* row = rows + j * codes.count * codes.width;
    for (int64_t i = 0; i < codes.count; ++i, row += codes.width) {
      own[i] = static_cast<int32_t>(code(own[i]));
      std::memcpy(row, codes.rows + own[i] * codes.width, static_cast<size_t>(codes.width));
    }
  }
  // At random, since codes may come in any order; one from each of as many stretches.
  std::mt19937_64 random(static_cast<uint64_t>(codes.count));
  const int64_t size = HashLayout::sample_size(codes.count);
  for (int64_t i = 0; i < size; ++i) {
    const int64_t first = codes.count * i / size, room = codes.count * (i + 1) / size - first;
    const int64_t code = first + static_cast<int64_t>(random() % static_cast<uint64_t>(room));
    std::memcpy(sample + i * codes.width, codes.rows + code * codes.width, static_cast<size_t>(codes.width));
  }
}

std::vector<int32_t> frequent_codes(const DistinctCodes& database) {
  std::vector<int32_t> codes;
  if (database.offsets == nullptr) return codes;
  const auto rows = [&](int32_t code) { return Expander::count(database, code); };
  for (int32_t c = 0; c < static_cast<int32_t>(database.codes.count); ++c) {
    if (rows(c) > 1) codes.push_back(c);
  }
  const auto most = static_cast<int64_t>(std::min<size_t>(FrequentCodes::kMost, codes.size()));
  std::partial_sort(codes.begin(), codes.begin() + most, codes.end(),
                    [&](int32_t a, int32_t b) { return rows(a) != rows(b) ? rows(a) > rows(b) : a < b; });
  codes.resize(static_cast<size_t>(most));
  return codes;
}

}  // namespace adsq::cpu
