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

inline Tensor empty_on_cpu(const std::vector<int64_t>& sizes, ScalarType type) {
  return empty(sizes, type, aoti_torch_device_type_cpu(), 0);
}

}  // namespace adsq
