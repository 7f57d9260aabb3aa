// Launches kernels on a stream. tests/cuda_emulator/launcher.h has a class with the same functions.
#pragma once
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

namespace adsq::cuda {

class Launcher {
 public:
  explicit Launcher(void* stream) : stream_(static_cast<cudaStream_t>(stream)) {
    int device = 0;
    keep(cudaGetDevice(&device));
    keep(cudaDeviceGetAttribute(&processors_, cudaDevAttrMultiProcessorCount, device));
    keep(cudaDeviceGetAttribute(&capability_, cudaDevAttrComputeCapabilityMajor, device));
  }

  template <typename... Parameters, typename... Arguments>
  void run(void (*kernel)(Parameters...), int64_t blocks, int threads, size_t shared, Arguments... arguments) {
    if (blocks == 0 || error_ != cudaSuccess) return;
    kernel<<<static_cast<unsigned>(blocks), static_cast<unsigned>(threads), shared, stream_>>>(arguments...);
    keep(cudaGetLastError());
  }

  // For kernels whose blocks loop over their work: no more blocks than the GPU holds at a time.
  template <typename... Parameters, typename... Arguments>
  void run_looping(void (*kernel)(Parameters...), int64_t blocks, int threads, size_t shared, Arguments... arguments) {
    int resident = 0;
    keep(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, threads, shared));
    const int64_t most = std::max<int64_t>(1, int64_t{processors_} * resident);
    run(kernel, std::min(blocks, most), threads, shared, arguments...);
  }

  // Waits for the work so far; 0 after an error.
  int64_t read(const int64_t* address) {
    int64_t value = 0;
    if (error_ == cudaSuccess) keep(cudaMemcpyAsync(&value, address, sizeof(value), cudaMemcpyDeviceToHost, stream_));
    if (error_ == cudaSuccess) keep(cudaStreamSynchronize(stream_));
    return error_ == cudaSuccess ? value : 0;
  }

  int processors() const { return processors_; }
  // Whether tensor cores multiply bit matrices: from Ampere to Hopper; later ones do so step by step, if at all.
  bool has_bit_matrices() const { return capability_ == 8 || capability_ == 9; }
  // The first error, a cudaError_t (0: success)
  int error() const { return error_; }

 private:
  void keep(cudaError_t error) {
    if (error_ == cudaSuccess) error_ = error;
  }

  cudaStream_t stream_;
  int processors_ = 0, capability_ = 0;
  cudaError_t error_ = cudaSuccess;
};

}  // namespace adsq::cuda
