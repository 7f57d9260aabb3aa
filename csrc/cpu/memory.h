// Memory of the CPU kernels.
#pragma once
#if defined(__x86_64__)
#include <emmintrin.h>
#endif
#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace adsq::cpu {

// Memory for vectors of any instruction set.
struct AlignedDelete {
  void operator()(void* memory) const { std::free(memory); }
};
template <typename T>
using Aligned = std::unique_ptr<T[], AlignedDelete>;

// With 64 bytes behind the last entry that may be read and written, for those who work on whole vectors or lines.
template <typename T>
Aligned<T> aligned_array(size_t count) {
  void* memory = std::aligned_alloc(64, (count * sizeof(T) + 127) / 64 * 64);
  if (memory == nullptr) throw std::bad_alloc();
  return Aligned<T>(static_cast<T*>(memory));
}

// Asks for huge pages where memory is read here and there later on: an address then is found in the processor's tables.
inline void want_huge_pages([[maybe_unused]] void* memory, [[maybe_unused]] int64_t bytes) {
#if defined(MADV_HUGEPAGE)
  constexpr uintptr_t kHuge = uintptr_t{2} << 20;
  const auto start = reinterpret_cast<uintptr_t>(memory);
  const uintptr_t first = (start + kHuge - 1) / kHuge * kHuge,
                  last = (start + static_cast<uintptr_t>(bytes)) / kHuge * kHuge;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

// The whole pages in a range of memory; calls advise(first, bytes), if there are any.
template <class Advise>
void whole_pages([[maybe_unused]] void* memory, [[maybe_unused]] int64_t bytes, [[maybe_unused]] Advise advise) {
#if defined(__linux__)
  static const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto start = reinterpret_cast<uintptr_t>(memory);
  const uintptr_t first = (start + page - 1) / page * page,
                  last = (start + static_cast<uintptr_t>(bytes)) / page * page;
  if (first < last) advise(reinterpret_cast<void*>(first), last - first);
#endif
}

// Has the system provide the pages of a result that is about to be written. Of large results most is new memory, and
// one fault after the other costs more than the computation.
inline void provide_pages([[maybe_unused]] void* memory, [[maybe_unused]] int64_t bytes) {
#if defined(MADV_POPULATE_WRITE)
  // Old kernels refuse, and the pages come one by one.
  whole_pages(memory, bytes, [](void* first, size_t size) { madvise(first, size, MADV_POPULATE_WRITE); });
#endif
}

// The same, part by part, for a result so large that it is worth huge pages. They take a sixth of the time, but five
// times as long where a virtual machine has to ask its host for each: then the rest comes in small ones, unless the
// memory is kept for other results, as those are written faster.
class HugeResult {
 public:
  HugeResult(void* memory, int64_t bytes, bool is_new) : memory_(memory), bytes_(bytes), may_give_up_(is_new) {
    want_huge_pages(memory, bytes);
  }

  void provide(void* part, int64_t bytes) {
    const auto start = std::chrono::steady_clock::now();
    provide_pages(part, bytes);
    const std::chrono::duration<double, std::nano> taken = std::chrono::steady_clock::now() - start;
    if (!may_give_up_ || taken.count() < kSlow * static_cast<double>(bytes)) return;
    may_give_up_ = false;
#if defined(MADV_NOHUGEPAGE)
    whole_pages(memory_, bytes_, [](void* first, size_t size) { madvise(first, size, MADV_NOHUGEPAGE); });
#endif
  }

 private:
  static constexpr double kSlow = 0.4;  // nanoseconds a byte, more than small pages take
  void* const memory_;
  const int64_t bytes_;
  bool may_give_up_;
};

// After writes past the caches: makes them visible to other threads.
inline void finish_writes() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

}  // namespace adsq::cpu
