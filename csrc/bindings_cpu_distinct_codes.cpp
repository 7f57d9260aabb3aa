// Registers the CPU kernels of distinct codes with the ops that kernels/distinct_codes/op.py defines.
#include <tuple>

#include "bindings_cpu.h"
#include "cpu/distinct_codes.h"

namespace adsq {
namespace {

template <typename T>
const T* entries(const Tensor& vector, const char* name, ScalarType type, int64_t size) {
  check_vector(vector, name, type, size);
  return static_cast<const T*>(vector.const_data_ptr());
}

std::tuple<Tensor, Tensor> number_codes(const Tensor& codes) {
  check_matrix(codes, "codes");
  STD_TORCH_CHECK(codes.scalar_type() == ScalarType::Byte && codes.size(1) >= 1, "codes: expected uint8 [N, B]");
  STD_TORCH_CHECK(codes.size(0) <= INT32_MAX, "codes: expected at most 2147483647 rows, got ", codes.size(0));
  const Tensor source = as_contiguous(codes);
  Tensor numbers = empty_on_cpu({source.size(0)}, ScalarType::Int);
  const std::vector<int64_t> found =
      cpu::number_codes(static_cast<const uint8_t*>(source.const_data_ptr()), source.size(0), source.size(1),
                        static_cast<int32_t*>(numbers.mutable_data_ptr()));
  Tensor first = empty_on_cpu({static_cast<int64_t>(found.size())}, ScalarType::Long);
  std::copy(found.begin(), found.end(), static_cast<int64_t*>(first.mutable_data_ptr()));
  return {first, numbers};
}

std::tuple<Tensor, Tensor> list_rows(const Tensor& numbers, int64_t num_codes) {
  const Tensor source = as_contiguous(numbers);
  const auto* number = entries<int32_t>(source, "numbers", ScalarType::Int, source.numel());
  for (int64_t i = 0; i < source.numel(); ++i) {
    STD_TORCH_CHECK(0 <= number[i] && number[i] < num_codes, "numbers: expected 0 to ", num_codes - 1, ", got ",
                    number[i]);
  }
  Tensor offsets = empty_on_cpu({num_codes + 1}, ScalarType::Int);
  Tensor rows = empty_on_cpu({source.numel()}, ScalarType::Int);
  cpu::list_rows(number, source.numel(), num_codes, static_cast<int32_t*>(offsets.mutable_data_ptr()),
                 static_cast<int32_t*>(rows.mutable_data_ptr()));
  return {offsets, rows};
}

// Lists, and the tensors that hold them.
struct ListTensors {
  Tensor offsets, rows;
  std::optional<Tensor> ids;

  ListTensors(const Tensor& list_offsets, const Tensor& list_rows, const std::optional<Tensor>& row_ids)
      : offsets(as_contiguous(list_offsets)), rows(as_contiguous(list_rows)), ids(contiguous(row_ids)) {}

  cpu::RowLists lists() const {
    const int64_t num_rows = rows.numel();
    STD_TORCH_CHECK(offsets.numel() >= 1, "offsets: expected one entry or more");
    return {entries<int32_t>(offsets, "offsets", ScalarType::Int, offsets.numel()),
            entries<int32_t>(rows, "rows", ScalarType::Int, num_rows), offsets.numel() - 1, num_rows,
            ids ? entries<int64_t>(*ids, "ids", ScalarType::Long, num_rows) : nullptr};
  }
};

std::tuple<Tensor, Tensor> expand_topk(const Tensor& distances, const Tensor& indices, int64_t k, const Tensor& offsets,
                                       const Tensor& rows, const std::optional<Tensor>& ids) {
  check_matrix(distances, "distances");
  check_matrix(indices, "indices");
  const int64_t num_queries = distances.size(0), width = distances.size(1);
  STD_TORCH_CHECK(k >= 1, "k: expected at least 1, got ", k);
  STD_TORCH_CHECK(distances.scalar_type() == ScalarType::Int && indices.scalar_type() == ScalarType::Long &&
                      indices.size(0) == num_queries && indices.size(1) == width,
                  "distances, indices: expected int32 and int64 of one shape");
  const Tensor near = as_contiguous(distances), codes = as_contiguous(indices);
  const ListTensors tensors(offsets, rows, ids);
  Tensor all_distances = empty_on_cpu({num_queries, k}, ScalarType::Int);
  Tensor all_ids = empty_on_cpu({num_queries, k}, ScalarType::Long);
  cpu::expand_topk({num_queries, nullptr, width, static_cast<const int32_t*>(near.const_data_ptr()),
                    static_cast<const int64_t*>(codes.const_data_ptr())},
                   tensors.lists(), k, static_cast<int32_t*>(all_distances.mutable_data_ptr()),
                   static_cast<int64_t*>(all_ids.mutable_data_ptr()), torch_threads());
  return {all_distances, all_ids};
}

std::tuple<Tensor, Tensor, Tensor> expand_range(const Tensor& query_offsets, const Tensor& distances,
                                                const Tensor& indices, const Tensor& offsets, const Tensor& rows,
                                                const std::optional<Tensor>& ids) {
  const Tensor begins = as_contiguous(query_offsets), near = as_contiguous(distances), codes = as_contiguous(indices);
  const int64_t num_queries = begins.numel() - 1, total = near.numel();
  STD_TORCH_CHECK(num_queries >= 0, "query_offsets: expected one entry or more");
  const auto* begin = entries<int64_t>(begins, "query_offsets", ScalarType::Long, num_queries + 1);
  for (int64_t q = 0; q <= num_queries; ++q) {
    STD_TORCH_CHECK(begin[q] >= (q == 0 ? 0 : begin[q - 1]) && begin[q] <= total,
                    "query_offsets: expected ascending places in distances");
  }
  const cpu::FoundCodes found{num_queries, begin, 0, entries<int32_t>(near, "distances", ScalarType::Int, total),
                              entries<int64_t>(codes, "indices", ScalarType::Long, total)};
  const ListTensors tensors(offsets, rows, ids);
  const cpu::RowLists lists = tensors.lists();
  const std::vector<int64_t> expanded = cpu::expanded_offsets(found, lists);
  Tensor all_offsets = empty_on_cpu({num_queries + 1}, ScalarType::Long);
  Tensor all_distances = empty_on_cpu({expanded.back()}, ScalarType::Int);
  Tensor all_ids = empty_on_cpu({expanded.back()}, ScalarType::Long);
  std::copy(expanded.begin(), expanded.end(), static_cast<int64_t*>(all_offsets.mutable_data_ptr()));
  cpu::expand_range(found, lists, expanded.data(), static_cast<int32_t*>(all_distances.mutable_data_ptr()),
                    static_cast<int64_t*>(all_ids.mutable_data_ptr()), torch_threads());
  return {all_offsets, all_distances, all_ids};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(adsq, CPU, library) {
  library.impl("distinct_codes", TORCH_BOX(&number_codes));
  library.impl("distinct_rows", TORCH_BOX(&list_rows));
  library.impl("distinct_topk", TORCH_BOX(&expand_topk));
  library.impl("distinct_range", TORCH_BOX(&expand_range));
}

}  // namespace adsq
