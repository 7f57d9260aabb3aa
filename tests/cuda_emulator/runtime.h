// The emulator's runtime as cuda_emulator.h sees it: launches, and what a lane (one CUDA thread) asks of it.
#pragma once
#include <cstddef>
#include <cstdint>

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace emulator {

// Where in the source a lane called
struct Site {
  const char* file;
  int line;
  static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
};

// In the place of <<<grid, block, dynamic_shared>>>
struct Launch {
  dim3 grid, block;
  size_t dynamic_shared = 0;
  size_t shared_limit = 0;        // what the launcher asks for with cudaFuncSetAttribute; 0: it does not, 48 KB it is
  unsigned launch_bounds = 1024;  // what the kernel names in __launch_bounds__, which cannot be read from the host
  unsigned patience = 1 << 24;    // atomics in a row, while no thread passes a barrier or ends, before it is a livelock
};

// Runs the kernel and returns when it is done, as if the stream were synchronised. An error is printed and ends the
// process with status kFailed.
void run(const Launch& launch, const char* kernel, void (*body)(void*), void* argument);
constexpr int kFailed = 3;

const uint3& thread_index();
const uint3& block_index();
const dim3& block_size();
const dim3& grid_size();

[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
// Waits for the lanes of `mask`, then returns the values that the 32 lanes of the warp brought.
const uint64_t* exchange(const char* call, unsigned mask, uint64_t value, Site site);
void barrier(const char* call, Site site);
// The block's object that `key` stands for; nullptr: its dynamic shared memory.
void* shared(const void* key, size_t size, size_t alignment);
void check_aligned(const void* address, size_t alignment, const char* call, Site site);
void before_atomic(void* address);
void after_atomic(void* address);
void fence();

}  // namespace emulator
