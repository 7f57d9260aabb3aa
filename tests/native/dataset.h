// Codes to search in, and their ranking by definition.
#pragma once
#include "check.h"

namespace adsq::test {

enum class Kind {
  kRandom,
  kEqual,        // one code
  kTwo,          // two codes
  kFew,          // five codes
  kDescending,   // the nearest come last
  kAscending,    // the nearest come first
  kClustered,    // a few bits from one of four centres
  kComplements,  // as far from some queries as can be
  kDuplicates    // many equal to some queries: their search ends early
};
constexpr int kNumKinds = 9;

struct DataSet {
  int64_t width, count, num_queries;
  Buffer<uint8_t> rows, query_rows;

  cpu::Codes codes(const uint8_t* mask = nullptr) const { return {rows.data(), count, width, mask}; }
  cpu::Codes queries() const { return {query_rows.data(), num_queries, width}; }
  uint8_t* row(int64_t i) const { return rows.data() + i * width; }
  uint8_t* query(int64_t q) const { return query_rows.data() + q * width; }
};

extern int64_t num_data_sets;

// Rows at `offset`, as in `allocate`. Sets the context.
DataSet make_data(Kind kind, int64_t width, int64_t count, int64_t num_queries, int64_t offset, Random& random);

void fill_random(const Buffer<uint8_t>& buffer, Random& random);

// How many of the first num_bits bits differ.
int32_t distance(const uint8_t* a, const uint8_t* b, int64_t num_bits);

struct Neighbour {
  int32_t distance;
  int64_t index;
};
// Every code for each query, by (distance, index).
using Ranking = std::vector<std::vector<Neighbour>>;
Ranking rank(const DataSet& data);

}  // namespace adsq::test
