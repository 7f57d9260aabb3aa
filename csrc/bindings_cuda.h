// What the bindings of the CUDA kernels share.
#pragma once
#include <cuda_runtime.h>

#include <vector>

#include "bindings.h"
#include "cuda/inputs.h"

namespace adsq {

inline void* current_stream(const Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return stream;
}

inline void check_launch(int error) {
  STD_TORCH_CHECK(error == cudaSuccess, "CUDA: ", cudaGetErrorString(static_cast<cudaError_t>(error)));
}

inline cuda::PackedCodes codes_of(const Tensor& codes) {
  return {codes.const_data_ptr(), codes.size(0), codes.size(1)};
}

// A new tensor on the GPU of another one.
inline Tensor empty_beside(const Tensor& other, const std::vector<int64_t>& sizes, ScalarType type) {
  return empty(sizes, type, aoti_torch_device_type_cuda(), other.get_device_index());
}

// Memory for kernels on the current stream, beside a tensor. PyTorch may give it to later work on the same stream.
class Scratch {
 public:
  explicit Scratch(const Tensor& beside) : beside_(beside) {}

  // Small pieces share an allocation, which takes the host as long as a launch.
  cuda::Allocate allocator() {
    return [this](int64_t bytes) {
      constexpr int64_t kAligned = 256, kShared = 1 << 20;
      bytes = (bytes + kAligned - 1) / kAligned * kAligned;
      if (bytes > left_) {
        left_ = std::max(bytes, kShared);
        tensors_.push_back(empty_beside(beside_, {left_}, ScalarType::Byte));
        next_ = static_cast<uint8_t*>(tensors_.back().mutable_data_ptr());
      }
      void* const piece = next_;
      next_ += bytes, left_ -= bytes;
      return piece;
    };
  }

 private:
  const Tensor& beside_;
  std::vector<Tensor> tensors_;
  uint8_t* next_ = nullptr;
  int64_t left_ = 0;
};

}  // namespace adsq
