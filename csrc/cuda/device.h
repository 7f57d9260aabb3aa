// Shared memory in kernels that nvcc and tests/cuda_emulator both compile. The emulator must know each object to poison
// it before a block and to watch it, so kernels declare it with these macros instead of __shared__.
//   ADSQ_SHARED(histogram, unsigned[256]);      an object of that type, not initialised
//   ADSQ_DYNAMIC_SHARED(buffer, unsigned);      a pointer to what the launch asked for, aligned to 16 bytes
#pragma once

#ifndef ADSQ_CUDA_EMULATOR
#define ADSQ_SHARED(name, ...)     \
  using name##_type = __VA_ARGS__; \
  __shared__ name##_type name
#define ADSQ_DYNAMIC_SHARED(name, ...)                                 \
  extern __shared__ __align__(16) unsigned char adsq_dynamic_shared[]; \
  auto* const name = reinterpret_cast<__VA_ARGS__*>(adsq_dynamic_shared)
#endif
