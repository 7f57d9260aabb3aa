// Registers the CUDA kernels of range search and of ranking quality. As in bindings_cuda.cpp, but for hamming_range,
// which waits for the GPU once: how many results there are depends on the data.
#include <tuple>

#include "bindings_cuda.h"
#include "cuda/hamming_range.h"
#include "cuda/hamming_ranking.h"

namespace adsq {
namespace {

std::tuple<Tensor, Tensor, Tensor> hamming_range(const Tensor& queries, const Tensor& database, int64_t radius,
                                                 const std::optional<Tensor>& ids) {
  check_pair(queries, database);
  STD_TORCH_CHECK(radius >= 0, "radius: expected at least 0, got ", radius);
  const torch::stable::accelerator::DeviceGuard guard(queries.get_device_index());
  const Tensor some = as_contiguous(queries), all = as_contiguous(database);
  const std::optional<Tensor> names = contiguous(ids);
  if (names) check_vector(*names, "ids", ScalarType::Long, all.size(0));
  Tensor offsets = empty_beside(some, {some.size(0) + 1}, ScalarType::Long);
  std::optional<Tensor> distances, indices;
  const auto make = [&](int64_t total) -> cuda::RangeResults {
    distances = empty_beside(some, {total}, ScalarType::Int);
    indices = empty_beside(some, {total}, ScalarType::Long);
    return {static_cast<int32_t*>(distances->mutable_data_ptr()), static_cast<int64_t*>(indices->mutable_data_ptr())};
  };
  Scratch scratch(some);
  check_launch(cuda::launch_hamming_range(
      codes_of(some), codes_of(all), radius, names ? static_cast<const int64_t*>(names->const_data_ptr()) : nullptr,
      static_cast<int64_t*>(offsets.mutable_data_ptr()), make, scratch.allocator(), current_stream(some)));
  return {offsets, *distances, *indices};
}

// `source` is contiguous.
cuda::LabelRows labels_of(const Tensor& source, const char* name, int64_t count) {
  STD_TORCH_CHECK((source.dim() == 1 || source.dim() == 2) && source.size(0) == count, name, ": expected ", count,
                  " class ids or label rows");
  if (source.dim() == 1) {
    check_vector(source, name, ScalarType::Long, count);
    return {source.const_data_ptr(), Element::kInt64, count, 1, true};
  }
  const ScalarType type = source.scalar_type();
  return {source.const_data_ptr(), type == ScalarType::Bool ? Element::kUInt8 : element_of(type), count, source.size(1),
          false};
}

// The inputs of both functions below, checked.
struct Inputs {
  Tensor queries, database, query_labels, database_labels;
  cuda::LabelRows wanted, given;
};

Inputs check_inputs(const Tensor& queries, const Tensor& database, const Tensor& query_labels,
                    const Tensor& database_labels) {
  check_pair(queries, database);
  Inputs inputs{as_contiguous(queries),
                as_contiguous(database),
                as_contiguous(query_labels),
                as_contiguous(database_labels),
                {},
                {}};
  inputs.wanted = labels_of(inputs.query_labels, "query_labels", queries.size(0));
  inputs.given = labels_of(inputs.database_labels, "database_labels", database.size(0));
  STD_TORCH_CHECK(
      inputs.wanted.are_ids == inputs.given.are_ids && inputs.wanted.num_classes == inputs.given.num_classes,
      "query_labels: expected labels like database_labels");
  return inputs;
}

std::tuple<Tensor, Tensor> hamming_relevance_histogram(const Tensor& queries, const Tensor& database,
                                                       const Tensor& query_labels, const Tensor& database_labels,
                                                       int64_t num_bits) {
  const torch::stable::accelerator::DeviceGuard guard(queries.get_device_index());
  const Inputs inputs = check_inputs(queries, database, query_labels, database_labels);
  STD_TORCH_CHECK(num_bits >= 1 && queries.size(1) == (num_bits + 7) / 8, "num_bits: does not fit the codes");
  Tensor total = empty_beside(queries, {queries.size(0), num_bits + 1}, ScalarType::Long);
  Tensor relevant = empty_beside(queries, {queries.size(0), num_bits + 1}, ScalarType::Long);
  Scratch scratch(queries);
  check_launch(cuda::launch_hamming_relevance_histogram(
      codes_of(inputs.queries), codes_of(inputs.database), inputs.wanted, inputs.given, num_bits,
      static_cast<int64_t*>(total.mutable_data_ptr()), static_cast<int64_t*>(relevant.mutable_data_ptr()),
      scratch.allocator(), current_stream(queries)));
  return {total, relevant};
}

std::tuple<Tensor, Tensor> hamming_average_precision(const Tensor& queries, const Tensor& database,
                                                     const Tensor& query_labels, const Tensor& database_labels,
                                                     std::optional<int64_t> k, bool expected) {
  const torch::stable::accelerator::DeviceGuard guard(queries.get_device_index());
  const Inputs inputs = check_inputs(queries, database, query_labels, database_labels);
  Tensor average_precision = empty_beside(queries, {queries.size(0)}, ScalarType::Double);
  Tensor num_relevant = empty_beside(queries, {queries.size(0)}, ScalarType::Long);
  Scratch scratch(queries);
  check_launch(cuda::launch_hamming_average_precision(
      codes_of(inputs.queries), codes_of(inputs.database), inputs.wanted, inputs.given, k.value_or(database.size(0)),
      expected, static_cast<double*>(average_precision.mutable_data_ptr()),
      static_cast<int64_t*>(num_relevant.mutable_data_ptr()), scratch.allocator(), current_stream(queries)));
  return {average_precision, num_relevant};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(adsq, CUDA, library) {
  library.impl("hamming_range", TORCH_BOX(&hamming_range));
  library.impl("hamming_relevance_histogram", TORCH_BOX(&hamming_relevance_histogram));
  library.impl("hamming_average_precision", TORCH_BOX(&hamming_average_precision));
}

}  // namespace adsq
