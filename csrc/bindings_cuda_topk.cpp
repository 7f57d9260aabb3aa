// Registers top-k search on the GPU.
#include <tuple>

#include "bindings_cuda.h"
#include "cuda/hamming_topk.h"

namespace adsq {
namespace {

void hamming_topk_out(const Tensor& queries, const Tensor& database, const std::optional<Tensor>& mask,
                      const std::optional<Tensor>& ids, const Tensor& distances, const Tensor& indices) {
  check_pair(queries, database);
  check_found(queries, distances, indices);
  const torch::stable::accelerator::DeviceGuard guard(queries.get_device_index());
  const Tensor some = as_contiguous(queries), all = as_contiguous(database);
  const std::optional<Tensor> allowed = contiguous(mask), names = contiguous(ids);
  if (allowed) check_vector(*allowed, "mask", ScalarType::Bool, all.size(0));
  if (names) check_vector(*names, "ids", ScalarType::Long, all.size(0));
  if (some.size(0) == 0) return;
  Scratch scratch(some);
  check_launch(cuda::launch_hamming_topk(
      codes_of(some), codes_of(all), allowed ? static_cast<const bool*>(allowed->const_data_ptr()) : nullptr,
      distances.size(1), names ? static_cast<const int64_t*>(names->const_data_ptr()) : nullptr,
      static_cast<int32_t*>(distances.mutable_data_ptr()), static_cast<int64_t*>(indices.mutable_data_ptr()),
      scratch.allocator(), current_stream(some)));
}

std::tuple<Tensor, Tensor> hamming_topk(const Tensor& queries, const Tensor& database, int64_t k,
                                        const std::optional<Tensor>& mask, const std::optional<Tensor>& ids) {
  check_matrix(queries, "queries");
  STD_TORCH_CHECK(k >= 1, "k: expected at least 1, got ", k);
  Tensor distances = empty_beside(queries, {queries.size(0), k}, ScalarType::Int);
  Tensor indices = empty_beside(queries, {queries.size(0), k}, ScalarType::Long);
  hamming_topk_out(queries, database, mask, ids, distances, indices);
  return {distances, indices};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(adsq, CUDA, library) {
  library.impl("hamming_topk", TORCH_BOX(&hamming_topk));
  library.impl("hamming_topk_out", TORCH_BOX(&hamming_topk_out));
}

}  // namespace adsq
