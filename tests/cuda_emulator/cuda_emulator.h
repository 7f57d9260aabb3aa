// Runs the device code of csrc/cuda on the host: one fiber a CUDA thread. Include it before the .cuh, link
// scheduler.cpp and checks.cpp.
//
//   emulator::Launch launch{blocks, threads};
//   EMULATE(launch, adsq::cuda::some_kernel<float>(pointer, count));
//
// ADSQ_EMULATOR_ORDER names the order of threads and blocks: forward, reverse, warp (one warp runs as far as it can) or
// random:SEED. Build with -fsanitize=address,undefined to find accesses out of bounds and misaligned ones, with
// -fsanitize=thread to find races; the two .cpp files themselves always without sanitizers.
//
// What a kernel may use: the built-in indices, barriers, warp votes, shuffles, match and reduce, bit counts, atomics,
// __threadfence, __ldg, vector types. Shared memory comes from the macros of csrc/cuda/device.h; it holds garbage at
// the start of each block. Stricter than CUDA, on purpose:
//   - A barrier needs all threads of the block at one call in the source, and exited threads are missing.
//   - A *_sync call needs all lanes in its mask at one call in the source with one mask; lanes that have exited or do
//     not exist (a block of 48 threads has 16 in its second warp) must not be named. Shuffles read lanes in the mask.
//   - Blocks run one after the other, so no block may spin on another. A loop that waits in vain is reported if it
//     waits by atomics; by plain or volatile reads it hangs.
// For ThreadSanitizer nothing orders two threads but __syncthreads, __syncwarp for its lanes, and atomics with fences:
// an atomic after __threadfence() publishes, a __threadfence() after that atomic receives. Votes, shuffles and products
// do not, as CUDA promises nothing of them. An atomic alone orders nothing, only the first atomic after a fence
// publishes, and launches are ordered by their ends. It remembers four accesses to each 8 bytes, so it can miss a race,
// and holds 8,000 threads a launch.
// Threads change places at barriers, *_sync calls and atomics only, so a plain read-modify-write by two threads gives
// the right result here: it takes ThreadSanitizer to see it. Loads never return stale values, as they may on a GPU.
//
// Not there: __activemask (its result means nothing), textures, cp.async, mma but for the products of
// csrc/cuda/mma.cuh, cooperative groups, dynamic parallelism,
// __noinline__ (libstdc++ uses the name), device printf and assert as CUDA has them, registers, timing.
#pragma once
#define ADSQ_CUDA_EMULATOR
#include "runtime.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)
#define __shared__ use_ADSQ_SHARED_of_csrc_cuda_device_h
#define threadIdx (::emulator::thread_index())
#define blockIdx (::emulator::block_index())
#define blockDim (::emulator::block_size())
#define gridDim (::emulator::grid_size())
constexpr int warpSize = 32;

#define ADSQ_SHARED(name, ...)      \
  using name##_type = __VA_ARGS__;  \
  static const char name##_key = 0; \
  auto& name = *static_cast<name##_type*>(::emulator::shared(&name##_key, sizeof(name##_type), alignof(name##_type)))
#define ADSQ_DYNAMIC_SHARED(name, ...) auto* const name = static_cast<__VA_ARGS__*>(::emulator::shared(nullptr, 0, 16))

#define EMULATE(launch, ...)                                                                                         \
  do {                                                                                                               \
    auto emulated_body = [&] { __VA_ARGS__; };                                                                       \
    ::emulator::run(                                                                                                 \
        launch, #__VA_ARGS__, [](void* body) { (*static_cast<decltype(emulated_body)*>(body))(); }, &emulated_body); \
  } while (false)

#include "device_functions.h"
#include "mma.h"

namespace adsq::cuda {
template <typename T>
T load_relaxed(const T* address) {
  return __atomic_load_n(address, __ATOMIC_RELAXED);
}
}  // namespace adsq::cuda
