// Threads and memory as the CPU kernels see them.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <new>

namespace adsq::cpu {

// Runs task(0), ..., task(tasks - 1), at most `count` of them at the same time.
struct Threads {
  int64_t count;
  std::function<void(int64_t tasks, const std::function<void(int64_t)>& task)> run;
};

// Memory for vectors of any instruction set.
struct AlignedDelete {
  void operator()(void* memory) const { std::free(memory); }
};
template <typename T>
using Aligned = std::unique_ptr<T[], AlignedDelete>;

template <typename T>
Aligned<T> aligned_array(size_t count) {
  void* memory = std::aligned_alloc(64, (count * sizeof(T) + 127) / 64 * 64);
  if (memory == nullptr) throw std::bad_alloc();
  return Aligned<T>(static_cast<T*>(memory));
}

}  // namespace adsq::cpu
