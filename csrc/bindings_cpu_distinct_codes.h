// Distinct codes with their rows as the ops take them.
#pragma once
#include "bindings_cpu.h"
#include "cpu/distinct_codes.h"

namespace adsq {

template <typename T>
const T* entries(const Tensor& vector, const char* name, ScalarType type, int64_t size) {
  check_vector(vector, name, type, size);
  return static_cast<const T*>(vector.const_data_ptr());
}

// Queries and distinct codes, or codes that may repeat and have no lists of rows, and the tensors that hold them.
struct DistinctInputs {
  Tensor queries, codes;
  std::optional<Tensor> offsets, rows, ids;

  DistinctInputs(const Tensor& some, const Tensor& all, const std::optional<Tensor>& list_offsets,
                 const std::optional<Tensor>& list_rows, const std::optional<Tensor>& row_ids)
      : queries(as_contiguous(some)), codes(as_contiguous(all)) {
    check_pair(queries, codes);
    if (list_offsets) offsets = as_contiguous(*list_offsets);
    if (list_rows) rows = as_contiguous(*list_rows);
    if (row_ids) ids = as_contiguous(*row_ids);
    STD_TORCH_CHECK(offsets.has_value() == rows.has_value(), "rows: expected with offsets");
  }

  static cpu::Codes codes_of(const Tensor& codes) {
    return {static_cast<const uint8_t*>(codes.const_data_ptr()), codes.size(0), codes.size(1)};
  }

  cpu::DistinctCodes database() const {
    const int64_t num_rows = rows ? rows->numel() : codes.size(0);
    return {codes_of(codes),
            offsets ? entries<int32_t>(*offsets, "offsets", ScalarType::Int, codes.size(0) + 1) : nullptr,
            rows ? entries<int32_t>(*rows, "rows", ScalarType::Int, num_rows) : nullptr, num_rows,
            ids ? entries<int64_t>(*ids, "ids", ScalarType::Long, num_rows) : nullptr};
  }
};

}  // namespace adsq
