// What the parts of the emulator's runtime share. Linked-in sanitizers are found by their weak symbols.
#pragma once
#include <ucontext.h>

#include <memory>
#include <random>
#include <vector>

#include "runtime.h"

extern "C" {
#define WEAK __attribute__((weak))
WEAK void* __tsan_get_current_fiber();
WEAK void* __tsan_create_fiber(unsigned flags);
WEAK void __tsan_destroy_fiber(void* fiber);
WEAK void __tsan_switch_to_fiber(void* fiber, unsigned flags);
WEAK void __tsan_acquire(void* address);
WEAK void __tsan_release(void* address);
WEAK void __sanitizer_start_switch_fiber(void** fake_stack, const void* bottom, size_t size);
WEAK void __sanitizer_finish_switch_fiber(void* fake_stack, const void** bottom, size_t* size);
}

namespace emulator {

enum class State { kReady, kWaiting, kDone };

struct Lane {
  ucontext_t context;
  void* tsan;
  void* fake_stack;
  uint3 index;
  State state;
  // What it waits at; mask 0: all threads of the block
  const char* call;
  Site site;
  unsigned mask;
  char* ticket;
  uint64_t value, gathered[32];
  void* last_atomic;
  bool publishes;
};

struct Shared {
  const void* key;
  void* memory;
  size_t size;
};

// What one block uses. ThreadSanitizer keeps all blocks until the launch ends: memory used again would link them.
struct Block {
  std::unique_ptr<Lane[]> lanes;
  size_t threads;
  char* stacks;
  std::vector<Shared> shared;

  explicit Block(size_t threads);
  Block(const Block&) = delete;
  ~Block();
  void free_shared();
};

struct Order {
  enum { kForward, kReverse, kWarp, kRandom } kind = kForward;
  std::mt19937 random;
};

// The launch in progress; kernel is nullptr outside of one, lane is nullptr while the scheduler runs.
struct Now {
  Launch launch;
  const char* kernel = nullptr;
  void (*body)(void*) = nullptr;
  void* argument = nullptr;
  Order order;
  Block* block = nullptr;
  Lane* lane = nullptr;
  uint3 block_index{};
  unsigned threads = 0, cursor = 0, left = 0, impatience = 0;
  ucontext_t scheduler;
  void *tsan = nullptr, *fake_stack = nullptr;
  const void* host_stack = nullptr;
  size_t host_stack_bytes = 0, next_ticket = 0;
  char* tickets = nullptr;
  char end = 0;  // address on which all lanes publish when they end
};
extern Now now;

inline bool races() { return __tsan_create_fiber != nullptr; }
inline void release(void* address) {
  if (races()) __tsan_release(address);
}
inline void acquire(void* address) {
  if (races()) __tsan_acquire(address);
}

Order read_order();
void check(const Launch& launch);
bool same_wait(const Lane& a, const Lane& b);
[[noreturn]] void fail_with_waits(const char* reason);
void to_scheduler();

}  // namespace emulator
