// Codes that repeat, stored once: finding them, listing their rows, and searching each code once for the nearest rows.
#pragma once
#include <cstdint>
#include <vector>

#include "cpu/hamming_topk.h"

namespace adsq::cpu {

// Numbers the rows, [count, width], by their code, the codes in the order of their first row, and returns those rows.
// There are at most INT32_MAX rows.
std::vector<int64_t> number_codes(const uint8_t* rows, int64_t count, int64_t width, int32_t* numbers);

// Writes num_codes + 1 offsets and `count` rows from the number of each row's code, all below num_codes.
void list_rows(const int32_t* numbers, int64_t count, int64_t num_codes, int32_t* offsets, int32_t* rows);

// Distinct codes, numbered by their first rows. The rows of code c are rows[offsets[c]], ..., rows[offsets[c + 1] - 1],
// ascending.
struct DistinctCodes {
  Codes codes;
  const int32_t* offsets;  // null: each code has one row, its number
  const int32_t* rows;
  int64_t num_rows;
  const int64_t* ids;  // of the rows, ascending; null: the rows themselves
};

// As hamming_topk over all rows. Throws std::out_of_range where offsets or rows are damaged, here and below.
void distinct_topk(const Codes& queries, const DistinctCodes& database, int64_t k, int32_t* distances, int64_t* ids,
                   const Threads& threads, bool is_new = true);

// What a search within a radius has found, and the rows of it. Whoever searches fills what is public, then calls
// count().
class RangeRows {
 public:
  RangeRows(const DistinctCodes& database, const Threads& threads) : database_(database), threads_(threads) {}

  std::vector<int64_t> found_offsets{0};  // of the codes that distinct queries have found, by (distance, code)
  std::vector<int32_t> distances;
  std::vector<int64_t> codes;

  // Counts rows; `queries` are the numbers of the queries among the distinct ones.
  void count(std::vector<int32_t> queries);

  const std::vector<int64_t>& offsets() const { return offsets_; }
  void write(int32_t* near, int64_t* ids) const;

 private:
  const DistinctCodes& database_;
  const Threads& threads_;
  std::vector<int32_t> numbers_;
  std::vector<int64_t> offsets_;
};

// As RangeSearch over all rows.
RangeRows distinct_range(const Codes& queries, const DistinctCodes& database, int64_t radius, const Threads& threads);

}  // namespace adsq::cpu
