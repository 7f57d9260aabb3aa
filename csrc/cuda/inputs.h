// What launchers of several kernels take; no CUDA and no torch in it.
#pragma once
#include <cstdint>
#include <functional>

namespace adsq::cuda {

// Codes [count, width] on the GPU
struct PackedCodes {
  const void* data;
  int64_t count, width;
};

// Makes memory on the GPU that lasts until the work on the stream is done.
using Allocate = std::function<void*(int64_t bytes)>;

}  // namespace adsq::cuda
