// Turns the codes that a search has found into their rows.
#pragma once
#include <cstdint>
#include <vector>

#include "cpu/distinct_codes.h"

namespace adsq::cpu {

// What a query has found, by (distance, code). Where it is cut, the list ends before the last of the codes at its last
// distance; those left out have larger numbers, and so later rows.
struct FoundCodes {
  const int32_t* distances;
  const int64_t* codes;
  int64_t count;
  bool cut;
};

class Expander {
 public:
  explicit Expander(const DistinctCodes& database) : database_(database) {}

  // Writes the first `limit` rows of the codes by (distance, row), as ids, and returns how many these are. Of codes
  // that are cut, only those rows before which no row of a code left out can be.
  int64_t expand(const FoundCodes& found, int64_t limit, int32_t* distances, int64_t* ids);

  // How many rows a code has.
  static int64_t count(const DistinctCodes& database, int64_t code);

 private:
  void fetch(const FoundCodes& found) const;
  int64_t id(int64_t row) const;
  int64_t take_one(int64_t code, int64_t room, int64_t* ids) const;
  int64_t merge(const int64_t* code, const int64_t* end, int64_t room, int32_t bound, int64_t* ids);
  int32_t keep(int64_t count);

  const DistinctCodes& database_;
  std::vector<int32_t> rows_, scratch_;
};

}  // namespace adsq::cpu
