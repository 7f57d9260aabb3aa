// Registers top-k search on the GPU.
#include <tuple>

#include "bindings_cuda.h"
#include "cuda/hamming_topk.h"

namespace adsq {
namespace {

std::tuple<Tensor, Tensor> hamming_topk(const Tensor& queries, const Tensor& database, int64_t k,
                                        const std::optional<Tensor>& mask, const std::optional<Tensor>& ids) {
  check_pair(queries, database);
  STD_TORCH_CHECK(k >= 1, "k: expected at least 1, got ", k);
  const torch::stable::accelerator::DeviceGuard guard(queries.get_device_index());
  const Tensor some = torch::stable::contiguous(queries), all = torch::stable::contiguous(database);
  const std::optional<Tensor> allowed = contiguous(mask), names = contiguous(ids);
  if (allowed) check_vector(*allowed, "mask", ScalarType::Bool, all.size(0));
  if (names) check_vector(*names, "ids", ScalarType::Long, all.size(0));
  Tensor distances = torch::stable::new_empty(some, {some.size(0), k}, ScalarType::Int);
  Tensor indices = torch::stable::new_empty(some, {some.size(0), k}, ScalarType::Long);
  if (some.size(0) == 0) return {distances, indices};
  Scratch scratch(some);
  check_launch(cuda::launch_hamming_topk(
      codes_of(some), codes_of(all), allowed ? static_cast<const bool*>(allowed->const_data_ptr()) : nullptr, k,
      names ? static_cast<const int64_t*>(names->const_data_ptr()) : nullptr,
      static_cast<int32_t*>(distances.mutable_data_ptr()), static_cast<int64_t*>(indices.mutable_data_ptr()),
      scratch.allocator(), current_stream(some)));
  return {distances, indices};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(adsq, CUDA, library) { library.impl("hamming_topk", TORCH_BOX(&hamming_topk)); }

}  // namespace adsq
