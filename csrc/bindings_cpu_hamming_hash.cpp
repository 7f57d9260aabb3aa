// Registers the CPU kernels of hash tables with the ops that kernels/hamming_hash/op.py defines.
#include <cstring>
#include <tuple>
#include <vector>

#include "bindings_cpu.h"
#include "bindings_cpu_distinct_codes.h"
#include "cpu/hamming_hash_costs.h"
#include "cpu/memory.h"

namespace adsq {
namespace {

// What `hash_tables` returns, in this order. Few tensors, since each takes its time at every call: the sample is
// followed by the frequent codes, and the rates by how many rows these have.
enum Part { kOffsets, kPositions, kRows, kSome, kRates, kParts };
constexpr int64_t kNumRates = sizeof(cpu::HashRates) / sizeof(double);

template <typename T>
T* data_of(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

// Tables that `hash_tables` made: only their sizes are checked.
cpu::HashTables tables_of(const Tensor& codes, const std::vector<Tensor>& parts,
                          const std::optional<Tensor>& learned = std::nullopt) {
  STD_TORCH_CHECK(!learned || (learned->is_contiguous() && learned->scalar_type() == ScalarType::Double &&
                               learned->numel() == cpu::HashLearned::kNumbers),
                  "learned: expected ", cpu::HashLearned::kNumbers, " numbers, float64");
  STD_TORCH_CHECK(parts.size() == kParts, "tables: expected what hash_tables returns");
  constexpr ScalarType kTypes[] = {ScalarType::Int, ScalarType::Int, ScalarType::Byte, ScalarType::Byte,
                                   ScalarType::Double};
  for (int i = 0; i < kParts; ++i) {
    STD_TORCH_CHECK(parts[i].is_contiguous() && parts[i].scalar_type() == kTypes[i],
                    "tables: expected what hash_tables returns");
  }
  const int64_t count = codes.size(0), width = codes.size(1), frequent = parts[kRates].numel() - kNumRates;
  const cpu::HashLayout layout(width, count);
  STD_TORCH_CHECK(parts[kOffsets].numel() == layout.first_offset(layout.num_tables) &&
                      parts[kPositions].numel() == layout.num_tables * count &&
                      parts[kRows].numel() == layout.num_tables * count * width && frequent >= 0 &&
                      frequent <= cpu::FrequentCodes::kMost &&
                      parts[kSome].numel() == (layout.sample_size(count) + frequent) * width,
                  "tables: expected tables of these codes");
  const auto* some = data_of<uint8_t>(parts[kSome]);
  const auto* rates = data_of<double>(parts[kRates]);
  cpu::HashTables tables{layout,
                         data_of<int32_t>(parts[kOffsets]),
                         data_of<int32_t>(parts[kPositions]),
                         data_of<uint8_t>(parts[kRows]),
                         some,
                         {some + layout.sample_size(count) * width, rates + kNumRates, frequent},
                         {},
                         learned ? data_of<double>(*learned) : nullptr};
  std::memcpy(&tables.rates, rates, sizeof(cpu::HashRates));
  return tables;
}

std::vector<Tensor> hash_tables(const Tensor& codes, const std::optional<Tensor>& offsets,
                                const std::optional<Tensor>& rows) {
  const DistinctInputs inputs(codes, codes, offsets, rows, std::nullopt);
  const int64_t count = codes.size(0), width = codes.size(1);
  STD_TORCH_CHECK(count <= INT32_MAX, "codes: expected at most 2147483647 rows, got ", count);
  const cpu::HashLayout layout(width, count);
  const cpu::DistinctCodes database = inputs.database();
  const std::vector<int32_t> frequent = cpu::frequent_codes(database);
  const auto num_frequent = static_cast<int64_t>(frequent.size());
  std::vector<Tensor> parts = {
      empty_on_cpu({layout.first_offset(layout.num_tables)}, ScalarType::Int),
      empty_on_cpu({layout.num_tables, count}, ScalarType::Int),
      empty_on_cpu({layout.num_tables, count, width}, ScalarType::Byte),
      empty_on_cpu({layout.sample_size(count) + num_frequent, width}, ScalarType::Byte),
      empty_on_cpu({kNumRates + num_frequent}, ScalarType::Double),
  };
  for (const Part part : {kOffsets, kPositions, kRows}) {
    cpu::want_huge_pages(parts[part].mutable_data_ptr(), parts[part].numel() * parts[part].element_size());
  }
  auto* some = data_of<uint8_t>(parts[kSome]);
  auto* rates = data_of<double>(parts[kRates]);
  cpu::make_hash_tables(database, layout, data_of<int32_t>(parts[kOffsets]), data_of<int32_t>(parts[kPositions]),
                        data_of<uint8_t>(parts[kRows]), some);
  for (int64_t i = 0; i < num_frequent; ++i) {
    const int32_t code = frequent[static_cast<size_t>(i)];
    std::copy_n(database.codes.rows + code * width, width, some + (layout.sample_size(count) + i) * width);
    rates[kNumRates + i] = database.offsets[code + 1] - database.offsets[code];
  }
  std::fill_n(rates, kNumRates, 0.0);
  return parts;
}

// The last of the tables, with rates.
Tensor hash_rates(const Tensor& codes, const std::vector<Tensor>& tables, const std::optional<Tensor>& offsets,
                  const std::optional<Tensor>& rows) {
  const DistinctInputs inputs(codes, codes, offsets, rows, std::nullopt);
  const cpu::HashRates measured = cpu::measure_rates(inputs.database(), tables_of(codes, tables));
  Tensor rates = empty_on_cpu({tables[kRates].numel()}, ScalarType::Double);
  std::copy_n(data_of<double>(tables[kRates]), tables[kRates].numel(), data_of<double>(rates));
  std::memcpy(rates.mutable_data_ptr(), &measured, sizeof(measured));
  return rates;
}

std::tuple<Tensor, Tensor, Tensor> hash_topk(const Tensor& queries, const Tensor& codes, int64_t k, bool force,
                                             const std::vector<Tensor>& tables, const std::optional<Tensor>& offsets,
                                             const std::optional<Tensor>& rows, const std::optional<Tensor>& ids,
                                             const std::optional<Tensor>& learned) {
  STD_TORCH_CHECK(k >= 1, "k: expected at least 1, got ", k);
  const DistinctInputs inputs(queries, codes, offsets, rows, ids);
  Tensor distances = empty_on_cpu({queries.size(0), k}, ScalarType::Int);
  Tensor found = empty_on_cpu({queries.size(0), k}, ScalarType::Long);
  Tensor used = empty_on_cpu({queries.size(0)}, ScalarType::Byte);
  cpu::hash_topk(DistinctInputs::codes_of(inputs.queries), inputs.database(), tables_of(codes, tables, learned), k,
                 force, static_cast<int32_t*>(distances.mutable_data_ptr()),
                 static_cast<int64_t*>(found.mutable_data_ptr()), static_cast<uint8_t*>(used.mutable_data_ptr()),
                 torch_threads());
  return {distances, found, used};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> hash_range(const Tensor& queries, const Tensor& codes, int64_t radius,
                                                      bool force, const std::vector<Tensor>& tables,
                                                      const std::optional<Tensor>& offsets,
                                                      const std::optional<Tensor>& rows,
                                                      const std::optional<Tensor>& ids,
                                                      const std::optional<Tensor>& learned) {
  STD_TORCH_CHECK(radius >= 0, "radius: expected at least 0, got ", radius);
  const DistinctInputs inputs(queries, codes, offsets, rows, ids);
  const cpu::DistinctCodes database = inputs.database();
  Tensor used = empty_on_cpu({queries.size(0)}, ScalarType::Byte);
  const cpu::Threads threads = torch_threads();
  const cpu::RangeRows range =
      cpu::hash_range(DistinctInputs::codes_of(inputs.queries), database, tables_of(codes, tables, learned), radius,
                      force, static_cast<uint8_t*>(used.mutable_data_ptr()), threads);
  const int64_t total = range.offsets().back();
  Tensor begins = empty_on_cpu({queries.size(0) + 1}, ScalarType::Long);
  Tensor distances = empty_on_cpu({total}, ScalarType::Int), found = empty_on_cpu({total}, ScalarType::Long);
  std::copy(range.offsets().begin(), range.offsets().end(), static_cast<int64_t*>(begins.mutable_data_ptr()));
  range.write(static_cast<int32_t*>(distances.mutable_data_ptr()), static_cast<int64_t*>(found.mutable_data_ptr()));
  return {begins, distances, found, used};
}

// One row a query: whether the tables are chosen, their cost and that of a scan in nanoseconds, candidates, radius.
Tensor hash_plans(const Tensor& queries, const Tensor& codes, int64_t k, const std::vector<Tensor>& tables,
                  const std::optional<Tensor>& offsets, const std::optional<Tensor>& rows,
                  const std::optional<Tensor>& learned) {
  STD_TORCH_CHECK(k >= 1, "k: expected at least 1, got ", k);
  const DistinctInputs inputs(queries, codes, offsets, rows, std::nullopt);
  Tensor plans = empty_on_cpu({queries.size(0), 5}, ScalarType::Double);
  auto* plan = static_cast<double*>(plans.mutable_data_ptr());
  for (const cpu::HashPlan& of_query : cpu::hash_plans(DistinctInputs::codes_of(inputs.queries), inputs.database(),
                                                       tables_of(codes, tables, learned), k, torch_threads().count)) {
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
  library.impl("hash_rates", TORCH_BOX(&hash_rates));
  library.impl("hash_topk", TORCH_BOX(&hash_topk));
  library.impl("hash_range", TORCH_BOX(&hash_range));
  library.impl("hash_plans", TORCH_BOX(&hash_plans));
}

}  // namespace adsq
