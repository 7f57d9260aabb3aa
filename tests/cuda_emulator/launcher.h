// In the place of csrc/cuda/launch.cuh.
#pragma once
#include "cuda_emulator.h"

#include <algorithm>

namespace emulator {

struct Launcher {
  // Of kernels whose blocks loop over their work, with any number of warps
  int64_t most_blocks = 3;
  int most_threads = 1024;
  int multiprocessors = 2;

  template <typename... Parameters, typename... Arguments>
  void run(void (*kernel)(Parameters...), int64_t blocks, int threads, size_t shared, Arguments... arguments) {
    if (blocks == 0) return;
    Launch launch{static_cast<unsigned>(blocks), static_cast<unsigned>(threads)};
    launch.dynamic_shared = shared;
    EMULATE(launch, kernel(arguments...));
  }
  template <typename... Parameters, typename... Arguments>
  void run_looping(void (*kernel)(Parameters...), int64_t blocks, int threads, size_t shared, Arguments... arguments) {
    run(kernel, std::min(blocks, most_blocks), std::min(threads, most_threads), shared, arguments...);
  }
  int64_t read(const int64_t* address) const { return *address; }
  int processors() const { return multiprocessors; }
};

}  // namespace emulator
