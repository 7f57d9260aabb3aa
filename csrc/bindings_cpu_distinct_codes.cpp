// Registers the CPU kernels of distinct codes with the ops that kernels/distinct_codes/op.py defines.
#include <tuple>

#include "bindings_cpu_distinct_codes.h"

namespace adsq {
namespace {

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
  STD_TORCH_CHECK(numbers.numel() <= INT32_MAX, "numbers: expected at most 2147483647, got ", numbers.numel());
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

void search_into(const Tensor& queries, const Tensor& codes, const Tensor& offsets, const Tensor& rows,
                 const std::optional<Tensor>& ids, const Tensor& distances, const Tensor& found, bool is_new) {
  const DistinctInputs inputs(queries, codes, offsets, rows, ids);
  check_found(queries, distances, found);
  cpu::distinct_topk(DistinctInputs::codes_of(inputs.queries), inputs.database(), distances.size(1),
                     static_cast<int32_t*>(distances.mutable_data_ptr()),
                     static_cast<int64_t*>(found.mutable_data_ptr()), torch_threads(), is_new);
}

void distinct_topk_out(const Tensor& queries, const Tensor& codes, const Tensor& offsets, const Tensor& rows,
                       const std::optional<Tensor>& ids, const Tensor& distances, const Tensor& found) {
  search_into(queries, codes, offsets, rows, ids, distances, found, false);
}

std::tuple<Tensor, Tensor> distinct_topk(const Tensor& queries, const Tensor& codes, int64_t k, const Tensor& offsets,
                                         const Tensor& rows, const std::optional<Tensor>& ids) {
  check_matrix(queries, "queries");
  STD_TORCH_CHECK(k >= 1, "k: expected at least 1, got ", k);
  Tensor distances = empty_on_cpu({queries.size(0), k}, ScalarType::Int);
  Tensor found = empty_on_cpu({queries.size(0), k}, ScalarType::Long);
  search_into(queries, codes, offsets, rows, ids, distances, found, true);
  return {distances, found};
}

std::tuple<Tensor, Tensor, Tensor> distinct_range(const Tensor& queries, const Tensor& codes, int64_t radius,
                                                  const Tensor& offsets, const Tensor& rows,
                                                  const std::optional<Tensor>& ids) {
  STD_TORCH_CHECK(radius >= 0, "radius: expected at least 0, got ", radius);
  const DistinctInputs inputs(queries, codes, offsets, rows, ids);
  const cpu::DistinctCodes database = inputs.database();
  const cpu::Threads threads = torch_threads();
  const cpu::RangeRows range = cpu::distinct_range(DistinctInputs::codes_of(inputs.queries), database, radius, threads);
  const int64_t total = range.offsets().back();
  Tensor begins = empty_on_cpu({queries.size(0) + 1}, ScalarType::Long);
  Tensor distances = empty_on_cpu({total}, ScalarType::Int), found = empty_on_cpu({total}, ScalarType::Long);
  std::copy(range.offsets().begin(), range.offsets().end(), static_cast<int64_t*>(begins.mutable_data_ptr()));
  range.write(static_cast<int32_t*>(distances.mutable_data_ptr()), static_cast<int64_t*>(found.mutable_data_ptr()));
  return {begins, distances, found};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(adsq, CPU, library) {
  library.impl("distinct_codes", TORCH_BOX(&number_codes));
  library.impl("distinct_rows", TORCH_BOX(&list_rows));
  library.impl("distinct_topk", TORCH_BOX(&distinct_topk));
  library.impl("distinct_topk_out", TORCH_BOX(&distinct_topk_out));
  library.impl("distinct_range", TORCH_BOX(&distinct_range));
}

}  // namespace adsq
