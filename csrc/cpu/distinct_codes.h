// Codes that repeat, stored once: finding them, listing their rows, and turning what a search finds among them into rows.
#pragma once
#include <cstdint>
#include <vector>

#include "cpu/threads.h"

namespace adsq::cpu {

// Numbers the rows, [count, width], by their code, the codes in the order of their first row, and returns those rows.
// There are at most INT32_MAX rows.
std::vector<int64_t> number_codes(const uint8_t* rows, int64_t count, int64_t width, int32_t* numbers);

// Rows by code: those of code c are rows[offsets[c]], ..., rows[offsets[c + 1] - 1], ascending.
struct RowLists {
  const int32_t* offsets;
  const int32_t* rows;
  int64_t num_codes, num_rows;
  const int64_t* ids;  // of the rows, ascending; null: the rows themselves
};

// Writes num_codes + 1 offsets and `count` rows from the number of each row's code, all below num_codes.
void list_rows(const int32_t* numbers, int64_t count, int64_t num_codes, int32_t* offsets, int32_t* rows);

// What a search has found among the codes: those of query q in places first(q)..last(q) - 1, by (distance, code).
struct FoundCodes {
  int64_t num_queries;
  const int64_t* query_offsets;  // num_queries + 1; null: `width` places a query
  int64_t width;
  const int32_t* distances;
  const int64_t* codes;  // -1 ends those of a query

  int64_t first(int64_t q) const { return query_offsets == nullptr ? q * width : query_offsets[q]; }
  int64_t last(int64_t q) const { return first(q + 1); }
};

// The first k rows of the codes found, by (distance, row), as ids: [num_queries, k], filled up as hamming_topk does.
// Where codes are numbered by their first row, and the k nearest codes are given, these are the k nearest rows.
// Throws std::out_of_range for a code or row that is not there.
void expand_topk(const FoundCodes& found, const RowLists& lists, int64_t k, int32_t* distances, int64_t* ids,
                 const Threads& threads);

// Where the rows of each query begin: num_queries + 1 numbers.
std::vector<int64_t> expanded_offsets(const FoundCodes& found, const RowLists& lists);

// All rows of the codes found, by (distance, row), as ids.
void expand_range(const FoundCodes& found, const RowLists& lists, const int64_t* offsets, int32_t* distances,
                  int64_t* ids, const Threads& threads);

}  // namespace adsq::cpu
