// Queries that repeat, searched once.
#pragma once
#include <cstdint>
#include <cstring>
#include <numeric>
#include <vector>

#include "cpu/distinct_codes.h"

namespace adsq::cpu {

// Copies of some rows.
inline std::vector<uint8_t> gathered(const Codes& from, const std::vector<int64_t>& rows) {
  std::vector<uint8_t> some(rows.size() * static_cast<size_t>(from.width));
  uint8_t* to = some.data();
  for (const int64_t row : rows) {
    std::memcpy(to, from.rows + row * from.width, static_cast<size_t>(from.width));
    to += from.width;
  }
  return some;
}

// The distinct ones among some queries.
struct DistinctQueries {
  static constexpr int64_t kRepeated = 8;  // from so many queries on, equal ones are looked for

  std::vector<int32_t> numbers;  // of each query, among the distinct ones
  std::vector<int64_t> first;    // query with each number
  std::vector<uint8_t> copy;
  Codes codes;

  explicit DistinctQueries(const Codes& queries) : numbers(static_cast<size_t>(queries.count)), codes(queries) {
    if (queries.count >= kRepeated) {
      first = number_codes(queries.rows, queries.count, queries.width, numbers.data());
    } else {
      std::iota(numbers.begin(), numbers.end(), 0);
      for (int64_t q = 0; q < queries.count; ++q) first.push_back(q);
    }
    if (static_cast<int64_t>(first.size()) == queries.count) return;
    copy = gathered(queries, first);
    codes.rows = copy.data();
    codes.count = static_cast<int64_t>(first.size());
  }

  // Copies the k results of each first query to the others equal to it.
  void spread(int64_t k, int32_t* distances, int64_t* ids) const {
    for (int64_t q = 0; q < static_cast<int64_t>(numbers.size()); ++q) {
      const int64_t from = first[static_cast<size_t>(numbers[static_cast<size_t>(q)])];
      if (from == q) continue;
      std::memcpy(distances + q * k, distances + from * k, static_cast<size_t>(k) * sizeof(int32_t));
      std::memcpy(ids + q * k, ids + from * k, static_cast<size_t>(k) * sizeof(int64_t));
    }
  }
};

}  // namespace adsq::cpu
