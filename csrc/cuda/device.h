// What kernels take from here, so that nvcc and tests/cuda_emulator both compile them.
//   ADSQ_SHARED(histogram, unsigned[256]);      an object of that type in shared memory, not initialised
//   ADSQ_DYNAMIC_SHARED(buffer, unsigned);      a pointer to what the launch asked for, aligned to 16 bytes
//   load_relaxed(pointer)                       the value now, where other threads change it by atomics
// The emulator must know each shared object to poison it before a block and to watch it.
#pragma once

#ifndef ADSQ_CUDA_EMULATOR
#define ADSQ_SHARED(name, ...)     \
  using name##_type = __VA_ARGS__; \
  __shared__ name##_type name
#define ADSQ_DYNAMIC_SHARED(name, ...)                                 \
  extern __shared__ __align__(16) unsigned char adsq_dynamic_shared[]; \
  auto* const name = reinterpret_cast<__VA_ARGS__*>(adsq_dynamic_shared)

namespace adsq::cuda {
template <typename T>
__device__ __forceinline__ T load_relaxed(const T* address) {
  return *static_cast<const volatile T*>(address);
}
}  // namespace adsq::cuda
#endif
