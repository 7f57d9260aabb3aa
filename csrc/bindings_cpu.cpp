// Registers the CPU kernels with the ops that kernels/<family>/op.py defines.
#include <optional>
#include <tuple>
#include <vector>

#include "bindings_cpu.h"
#include "cpu/codes.h"
#include "cpu/hamming_ranking.h"
#include "cpu/hamming_topk.h"
#include "cpu/simd.h"

namespace adsq {
namespace {

// About 32k elements a task: below that a second thread costs more than it brings.
int64_t rows_per_task(int64_t num_bits) { return std::max<int64_t>(1, 32768 / std::max<int64_t>(1, num_bits)); }

Tensor pack_codes(const Tensor& codes) {
  check_matrix(codes, "codes");
  const Tensor source = as_contiguous(codes);
  const int64_t rows = source.size(0), num_bits = source.size(1);
  Tensor packed = empty_on_cpu({rows, (num_bits + 7) / 8}, ScalarType::Byte);
  const Element element = element_of(source.scalar_type());
  const void* from = source.const_data_ptr();
  auto* to = static_cast<uint8_t*>(packed.mutable_data_ptr());
  torch::stable::parallel_for(0, rows, rows_per_task(num_bits), [&](int64_t first, int64_t last) {
    cpu::pack_codes(element, from, to, first, last, num_bits);
  });
  return packed;
}

Tensor unpack_codes(const Tensor& packed, int64_t num_bits, ScalarType dtype) {
  check_packed(packed, num_bits);
  const Tensor source = as_contiguous(packed);
  const int64_t rows = source.size(0);
  Tensor codes = empty_on_cpu({rows, num_bits}, dtype);
  const Element element = element_of(dtype);
  const auto* from = static_cast<const uint8_t*>(source.const_data_ptr());
  void* to = codes.mutable_data_ptr();
  torch::stable::parallel_for(0, rows, rows_per_task(num_bits), [&](int64_t first, int64_t last) {
    cpu::unpack_codes(element, from, to, first, last, num_bits);
  });
  return codes;
}

cpu::Codes codes_of(const Tensor& codes) {
  return {static_cast<const uint8_t*>(codes.const_data_ptr()), codes.size(0), codes.size(1)};
}

const int64_t* ids_of(const std::optional<Tensor>& ids, int64_t count) {
  if (!ids) return nullptr;
  check_vector(*ids, "ids", ScalarType::Long, count);
  return static_cast<const int64_t*>(ids->const_data_ptr());
}

void search(const Tensor& queries, const Tensor& database, const std::optional<Tensor>& mask,
            const std::optional<Tensor>& ids, const Tensor& distances, const Tensor& indices, bool is_new) {
  check_pair(queries, database);
  check_found(queries, distances, indices);
  const Tensor some = as_contiguous(queries), all = as_contiguous(database);
  const std::optional<Tensor> allowed = contiguous(mask), names = contiguous(ids);
  cpu::Codes codes = codes_of(all);
  if (allowed) {
    check_vector(*allowed, "mask", ScalarType::Bool, codes.count);
    codes.mask = static_cast<const uint8_t*>(allowed->const_data_ptr());
  }
  cpu::hamming_topk(codes_of(some), codes, distances.size(1), ids_of(names, codes.count),
                    static_cast<int32_t*>(distances.mutable_data_ptr()),
                    static_cast<int64_t*>(indices.mutable_data_ptr()), torch_threads(), is_new);
}

void hamming_topk_out(const Tensor& queries, const Tensor& database, const std::optional<Tensor>& mask,
                      const std::optional<Tensor>& ids, const Tensor& distances, const Tensor& indices) {
  search(queries, database, mask, ids, distances, indices, false);
}

std::tuple<Tensor, Tensor> hamming_topk(const Tensor& queries, const Tensor& database, int64_t k,
                                        const std::optional<Tensor>& mask, const std::optional<Tensor>& ids) {
  check_matrix(queries, "queries");
  STD_TORCH_CHECK(k >= 1, "k: expected at least 1, got ", k);
  Tensor distances = empty_on_cpu({queries.size(0), k}, ScalarType::Int);
  Tensor indices = empty_on_cpu({queries.size(0), k}, ScalarType::Long);
  search(queries, database, mask, ids, distances, indices, true);
  return {distances, indices};
}

std::tuple<Tensor, Tensor, Tensor> hamming_range(const Tensor& queries, const Tensor& database, int64_t radius,
                                                 const std::optional<Tensor>& ids) {
  check_pair(queries, database);
  STD_TORCH_CHECK(radius >= 0, "radius: expected at least 0, got ", radius);
  const Tensor some = as_contiguous(queries), all = as_contiguous(database);
  const std::optional<Tensor> names = contiguous(ids);
  const int64_t* id = ids_of(names, all.size(0));
  const cpu::Threads threads = torch_threads();
  const cpu::RangeSearch found(codes_of(some), codes_of(all), radius, threads);
  const int64_t total = found.offsets().back();
  Tensor offsets = empty_on_cpu({some.size(0) + 1}, ScalarType::Long);
  std::copy(found.offsets().begin(), found.offsets().end(), static_cast<int64_t*>(offsets.mutable_data_ptr()));
  Tensor distances = empty_on_cpu({total}, ScalarType::Int), indices = empty_on_cpu({total}, ScalarType::Long);
  found.write(id, static_cast<int32_t*>(distances.mutable_data_ptr()),
              static_cast<int64_t*>(indices.mutable_data_ptr()));
  return {offsets, distances, indices};
}

// Labels and, where they come as rows, the bits made of them.
struct LabelWords {
  Tensor source;
  std::vector<uint64_t> bits;
  cpu::Labels labels;
};

LabelWords label_words(const Tensor& labels, const char* name, int64_t count) {
  LabelWords words{as_contiguous(labels), {}, {}};
  const Tensor& source = words.source;
  STD_TORCH_CHECK((source.dim() == 1 || source.dim() == 2) && source.size(0) == count, name, ": expected ", count,
                  " class ids or label rows");
  if (source.dim() == 1) {
    check_vector(source, name, ScalarType::Long, count);
    words.labels = {static_cast<const uint64_t*>(source.const_data_ptr()), count, 1, true};
    return words;
  }
  const int64_t num_classes = source.size(1), num_words = (num_classes + 63) / 64;
  words.bits.resize(static_cast<size_t>(count * num_words));
  const ScalarType type = source.scalar_type();
  dispatch_element(type == ScalarType::Bool ? Element::kUInt8 : element_of(type), [&](auto element) {
    const auto* rows = static_cast<const decltype(element)*>(source.const_data_ptr());
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t w = 0; w < num_words; ++w) {
        const auto* row = rows + i * num_classes + 64 * w;
        const int64_t length = std::min<int64_t>(64, num_classes - 64 * w);
        uint64_t bits = 0;
        for (int64_t c = 0; c < length; ++c) bits |= static_cast<uint64_t>(is_above_zero(row[c])) << c;
        words.bits[static_cast<size_t>(i * num_words + w)] = bits;
      }
    }
  });
  words.labels = {words.bits.data(), count, num_words, false};
  return words;
}

void check_labels(const cpu::Labels& query_labels, const cpu::Labels& database_labels, const Tensor& queries,
                  const Tensor& database) {
  STD_TORCH_CHECK(query_labels.are_ids == database_labels.are_ids && queries.dim() == database.dim() &&
                      (queries.dim() == 1 || queries.size(1) == database.size(1)),
                  "query_labels: expected labels like database_labels");
}

std::tuple<Tensor, Tensor> hamming_relevance_histogram(const Tensor& queries, const Tensor& database,
                                                       const Tensor& query_labels, const Tensor& database_labels,
                                                       int64_t num_bits) {
  check_pair(queries, database);
  STD_TORCH_CHECK(queries.size(1) == (num_bits + 7) / 8 && num_bits >= 1, "num_bits: does not fit the codes");
  const Tensor some = as_contiguous(queries), all = as_contiguous(database);
  const LabelWords wanted = label_words(query_labels, "query_labels", some.size(0));
  const LabelWords given = label_words(database_labels, "database_labels", all.size(0));
  check_labels(wanted.labels, given.labels, query_labels, database_labels);
  Tensor total = empty_on_cpu({some.size(0), num_bits + 1}, ScalarType::Long);
  Tensor relevant = empty_on_cpu({some.size(0), num_bits + 1}, ScalarType::Long);
  cpu::hamming_relevance_histogram(codes_of(some), codes_of(all), wanted.labels, given.labels, num_bits,
                                   static_cast<int64_t*>(total.mutable_data_ptr()),
                                   static_cast<int64_t*>(relevant.mutable_data_ptr()), torch_threads());
  return {total, relevant};
}

std::tuple<Tensor, Tensor> hamming_average_precision(const Tensor& queries, const Tensor& database,
                                                     const Tensor& query_labels, const Tensor& database_labels,
                                                     std::optional<int64_t> k, bool expected) {
  check_pair(queries, database);
  const Tensor some = as_contiguous(queries), all = as_contiguous(database);
  const LabelWords wanted = label_words(query_labels, "query_labels", some.size(0));
  const LabelWords given = label_words(database_labels, "database_labels", all.size(0));
  check_labels(wanted.labels, given.labels, query_labels, database_labels);
  Tensor average_precision = empty_on_cpu({some.size(0)}, ScalarType::Double);
  Tensor num_relevant = empty_on_cpu({some.size(0)}, ScalarType::Long);
  cpu::hamming_average_precision(codes_of(some), codes_of(all), wanted.labels, given.labels, k.value_or(all.size(0)),
                                 expected, static_cast<double*>(average_precision.mutable_data_ptr()),
                                 static_cast<int64_t*>(num_relevant.mutable_data_ptr()), torch_threads());
  return {average_precision, num_relevant};
}

bool simd_supported(int64_t variant) { return cpu::is_supported(static_cast<cpu::Simd>(variant)); }

int64_t simd_active() { return static_cast<int64_t>(cpu::active_simd()); }

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(adsq, CPU, library) {
  library.impl("pack_codes", TORCH_BOX(&pack_codes));
  library.impl("unpack_codes", TORCH_BOX(&unpack_codes));
  library.impl("hamming_topk", TORCH_BOX(&hamming_topk));
  library.impl("hamming_topk_out", TORCH_BOX(&hamming_topk_out));
  library.impl("hamming_range", TORCH_BOX(&hamming_range));
  library.impl("hamming_relevance_histogram", TORCH_BOX(&hamming_relevance_histogram));
  library.impl("hamming_average_precision", TORCH_BOX(&hamming_average_precision));
}

// What the library says about itself: numbers are those of cpu::Simd.
STABLE_TORCH_LIBRARY(adsq_cpu, library) {
  library.def("simd_supported(int variant) -> bool");
  library.def("simd_active() -> int");
}

STABLE_TORCH_LIBRARY_IMPL(adsq_cpu, CompositeExplicitAutograd, library) {
  library.impl("simd_supported", TORCH_BOX(&simd_supported));
  library.impl("simd_active", TORCH_BOX(&simd_active));
}

}  // namespace adsq
