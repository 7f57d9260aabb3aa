// Threads as the CPU kernels see them.
#pragma once
#include <cstdint>
#include <functional>

namespace adsq::cpu {

// Runs task(0), ..., task(tasks - 1), at most `count` of them at the same time.
struct Threads {
  int64_t count;
  std::function<void(int64_t tasks, const std::function<void(int64_t)>& task)> run;
};

}  // namespace adsq::cpu
