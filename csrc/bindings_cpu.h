// What the bindings of the CPU kernels share.
#pragma once
#include <algorithm>
#include <vector>

#include "bindings.h"
#include "cpu/threads.h"

namespace adsq {

inline cpu::Threads torch_threads() {
  return {torch::stable::get_num_threads(), [](int64_t count, const std::function<void(int64_t)>& task) {
            if (count == 1) return task(0);
            torch::stable::parallel_for(0, count, 1, [&](int64_t first, int64_t last) {
              for (int64_t i = first; i < last; ++i) task(i);
            });
          }};
}

inline Tensor as_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

// As torch::stable::new_empty, which looks its op up by name each time: three of them take as long as a small batch.
inline Tensor empty_on_cpu(const std::vector<int64_t>& sizes, ScalarType type) {
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t d = sizes.size(); d-- > 1;) strides[d - 1] = strides[d] * std::max<int64_t>(1, sizes[d]);
  AtenTensorHandle tensor;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      static_cast<int64_t>(sizes.size()), sizes.data(), strides.data(),
      torch::stable::detail::to<int32_t>(torch::stable::detail::from(type)), aoti_torch_device_type_cpu(), 0, &tensor));
  return Tensor(tensor);
}

}  // namespace adsq
