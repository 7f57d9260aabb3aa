// Registers the CPU kernels of hash tables with the ops that kernels/hamming_hash/op.py defines.
#include <tuple>

#include "bindings_cpu.h"
#include "bindings_cpu_distinct_codes.h"
#include "cpu/hamming_hash.h"
#include "cpu/memory.h"

namespace adsq {
namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor> hash_tables(const Tensor& codes) {
  check_pair(codes, codes);
  const Tensor source = as_contiguous(codes);
  const int64_t count = source.size(0), width = source.size(1);
  STD_TORCH_CHECK(count <= INT32_MAX, "codes: expected at most 2147483647 rows, got ", count);
  const cpu::HashLayout layout(width, count);
  Tensor offsets = empty_on_cpu({layout.first_offset(layout.num_tables)}, ScalarType::Int);
  Tensor positions = empty_on_cpu({layout.num_tables, count}, ScalarType::Int);
  Tensor rows = empty_on_cpu({layout.num_tables, count, width}, ScalarType::Byte);
  Tensor sample = empty_on_cpu({layout.sample_size(count), width}, ScalarType::Byte);
  for (const Tensor& part : {offsets, positions, rows}) {
    cpu::want_huge_pages(part.mutable_data_ptr(), part.numel() * part.element_size());
  }
  cpu::make_hash_tables(DistinctInputs::codes_of(source), layout, static_cast<int32_t*>(offsets.mutable_data_ptr()),
                        static_cast<int32_t*>(positions.mutable_data_ptr()),
                        static_cast<uint8_t*>(rows.mutable_data_ptr()),
                        static_cast<uint8_t*>(sample.mutable_data_ptr()));
  return {offsets, positions, rows, sample};
}

// Tables that `hash_tables` made: only their sizes are checked.
cpu::HashTables tables_of(const Tensor& codes, const Tensor& offsets, const Tensor& positions, const Tensor& rows,
                          const Tensor& sample) {
  const cpu::HashLayout layout(codes.size(1), codes.size(0));
  STD_TORCH_CHECK(
      offsets.is_contiguous() && positions.is_contiguous() && rows.is_contiguous() && sample.is_contiguous(),
      "tables: expected what hash_tables returns");
  check_vector(offsets, "table_offsets", ScalarType::Int, layout.first_offset(layout.num_tables));
  STD_TORCH_CHECK(positions.scalar_type() == ScalarType::Int && rows.scalar_type() == ScalarType::Byte &&
                      positions.numel() == layout.num_tables * codes.size(0) &&
                      rows.numel() == positions.numel() * codes.size(1) && sample.scalar_type() == ScalarType::Byte &&
                      sample.numel() == layout.sample_size(codes.size(0)) * codes.size(1),
                  "tables: expected tables of these codes");
  return {layout, static_cast<const int32_t*>(offsets.const_data_ptr()),
          static_cast<const int32_t*>(positions.const_data_ptr()), static_cast<const uint8_t*>(rows.const_data_ptr()),
          static_cast<const uint8_t*>(sample.const_data_ptr())};
}

std::tuple<Tensor, Tensor, Tensor> hash_topk(const Tensor& queries, const Tensor& codes, int64_t k, bool force,
                                             const Tensor& table_offsets, const Tensor& positions,
                                             const Tensor& table_rows, const Tensor& sample,
                                             const std::optional<Tensor>& offsets, const std::optional<Tensor>& rows,
                                             const std::optional<Tensor>& ids) {
  STD_TORCH_CHECK(k >= 1, "k: expected at least 1, got ", k);
  const DistinctInputs inputs(queries, codes, offsets, rows, ids);
  Tensor distances = empty_on_cpu({queries.size(0), k}, ScalarType::Int);
  Tensor found = empty_on_cpu({queries.size(0), k}, ScalarType::Long);
  Tensor used = empty_on_cpu({queries.size(0)}, ScalarType::Byte);
  cpu::hash_topk(DistinctInputs::codes_of(inputs.queries), inputs.database(),
                 tables_of(codes, table_offsets, positions, table_rows, sample), k, force,
                 static_cast<int32_t*>(distances.mutable_data_ptr()), static_cast<int64_t*>(found.mutable_data_ptr()),
                 static_cast<uint8_t*>(used.mutable_data_ptr()), torch_threads());
  return {distances, found, used};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> hash_range(const Tensor& queries, const Tensor& codes, int64_t radius,
                                                      bool force, const Tensor& table_offsets, const Tensor& positions,
                                                      const Tensor& table_rows, const Tensor& sample,
                                                      const std::optional<Tensor>& offsets,
                                                      const std::optional<Tensor>& rows,
                                                      const std::optional<Tensor>& ids) {
  STD_TORCH_CHECK(radius >= 0, "radius: expected at least 0, got ", radius);
  const DistinctInputs inputs(queries, codes, offsets, rows, ids);
  const cpu::DistinctCodes database = inputs.database();
  Tensor used = empty_on_cpu({queries.size(0)}, ScalarType::Byte);
  const cpu::Threads threads = torch_threads();
  const cpu::RangeRows range = cpu::hash_range(DistinctInputs::codes_of(inputs.queries), database,
                                               tables_of(codes, table_offsets, positions, table_rows, sample), radius,
                                               force, static_cast<uint8_t*>(used.mutable_data_ptr()), threads);
  const int64_t total = range.offsets().back();
  Tensor begins = empty_on_cpu({queries.size(0) + 1}, ScalarType::Long);
  Tensor distances = empty_on_cpu({total}, ScalarType::Int), found = empty_on_cpu({total}, ScalarType::Long);
  std::copy(range.offsets().begin(), range.offsets().end(), static_cast<int64_t*>(begins.mutable_data_ptr()));
  range.write(static_cast<int32_t*>(distances.mutable_data_ptr()), static_cast<int64_t*>(found.mutable_data_ptr()));
  return {begins, distances, found, used};
}

// One row a query: whether the tables are chosen, their cost and that of a scan in nanoseconds, candidates, radius.
Tensor hash_plans(const Tensor& queries, const Tensor& codes, int64_t k, const Tensor& table_offsets,
                  const Tensor& positions, const Tensor& table_rows, const Tensor& sample,
                  const std::optional<Tensor>& offsets, const std::optional<Tensor>& rows) {
  STD_TORCH_CHECK(k >= 1, "k: expected at least 1, got ", k);
  const DistinctInputs inputs(queries, codes, offsets, rows, std::nullopt);
  Tensor plans = empty_on_cpu({queries.size(0), 5}, ScalarType::Double);
  auto* plan = static_cast<double*>(plans.mutable_data_ptr());
  for (const cpu::HashPlan& of_query :
       cpu::hash_plans(DistinctInputs::codes_of(inputs.queries), inputs.database(),
                       tables_of(codes, table_offsets, positions, table_rows, sample), k)) {
    *plan++ = of_query.hash;
    *plan++ = of_query.hash_cost;
    *plan++ = of_query.scan_cost;
    *plan++ = static_cast<double>(of_query.candidates);
    *plan++ = of_query.radius;
  }
  return plans;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(adsq, CPU, library) {
  library.impl("hash_tables", TORCH_BOX(&hash_tables));
  library.impl("hash_topk", TORCH_BOX(&hash_topk));
  library.impl("hash_range", TORCH_BOX(&hash_range));
  library.impl("hash_plans", TORCH_BOX(&hash_plans));
}

}  // namespace adsq
