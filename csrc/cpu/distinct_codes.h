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
  const int32_t* offsets;
  const int32_t* rows;
  int64_t num_rows;
  const int64_t* ids;  // of the rows, ascending; null: the rows themselves
};

// As hamming_topk over all rows. Throws std::out_of_range where offsets or rows are damaged, here and below.
void distinct_topk(const Codes& queries, const DistinctCodes& database, int64_t k, int32_t* distances, int64_t* ids,
                   const Threads& threads);

// As RangeSearch over all rows.
class DistinctRange {
 public:
  DistinctRange(const Codes& queries, const DistinctCodes& database, int64_t radius, const Threads& threads);

  const std::vector<int64_t>& offsets() const { return offsets_; }
  void write(int32_t* distances, int64_t* ids) const;

 private:
  const DistinctCodes& database_;
  const Threads& threads_;
  std::vector<int32_t> numbers_;        // of each query among the distinct ones
  std::vector<int64_t> found_offsets_;  // of the codes that distinct queries have found
  std::vector<int32_t> distances_;
  std::vector<int64_t> codes_;
  std::vector<int64_t> offsets_;
};

}  // namespace adsq::cpu
