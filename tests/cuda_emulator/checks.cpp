// What the emulator refuses and how it says so; shared memory and the order that atomics and fences make.
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "state.h"

namespace emulator {
namespace {

constexpr size_t kDefaultShared = 48 << 10, kMaxShared = 227 << 10;
constexpr size_t kRaceThreads = 8000;  // ThreadSanitizer holds 8,128

void print_where() {
  if (now.kernel == nullptr) return;
  const uint3 b = now.block_index;
  std::fprintf(stderr, "  in %s, block (%u, %u, %u)", now.kernel, b.x, b.y, b.z);
  if (now.lane) std::fprintf(stderr, ", thread (%u, %u, %u)", now.lane->index.x, now.lane->index.y, now.lane->index.z);
  std::fprintf(stderr, "\n");
}

// One line for each run of threads, in their linear order, that wait at the same call.
void print_waits() {
  const Lane* lanes = now.block->lanes.get();
  for (unsigned i = 0, end; i < now.threads; i = end) {
    for (end = i + 1; end < now.threads && same_wait(lanes[i], lanes[end]);) ++end;
    std::fprintf(stderr, "  threads %u-%u: ", i, end - 1);
    if (lanes[i].state == State::kDone) {
      std::fprintf(stderr, "have exited\n");
    } else if (lanes[i].state == State::kReady) {
      std::fprintf(stderr, "can go on\n");
    } else if (lanes[i].mask == 0) {
      std::fprintf(stderr, "wait at %s, %s:%d\n", lanes[i].call, lanes[i].site.file, lanes[i].site.line);
    } else {
      std::fprintf(stderr, "wait at %s, mask 0x%08x, %s:%d\n", lanes[i].call, lanes[i].mask, lanes[i].site.file,
                   lanes[i].site.line);
    }
  }
}

}  // namespace

bool same_wait(const Lane& a, const Lane& b) {
  if (a.state != State::kWaiting || b.state != State::kWaiting) return a.state == b.state;
  return a.mask == b.mask && a.site.line == b.site.line && std::strcmp(a.call, b.call) == 0 &&
         std::strcmp(a.site.file, b.site.file) == 0;
}

[[noreturn]] void fail_with_waits(const char* reason) {
  std::fprintf(stderr, "cuda emulator: %s\n", reason);
  print_where();
  print_waits();
  std::_Exit(kFailed);
}

void fail(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::fprintf(stderr, "cuda emulator: ");
  std::vfprintf(stderr, format, arguments);
  std::fprintf(stderr, "\n");
  print_where();
  std::_Exit(kFailed);
}

Order read_order() {
  const char* text = std::getenv("ADSQ_EMULATOR_ORDER");
  Order order;
  if (text == nullptr || std::strcmp(text, "forward") == 0) return order;
  int end = 0;
  unsigned seed;
  if (std::strcmp(text, "reverse") == 0) {
    order.kind = Order::kReverse;
  } else if (std::strcmp(text, "warp") == 0) {
    order.kind = Order::kWarp;
  } else if (std::sscanf(text, "random:%u%n", &seed, &end) == 1 && text[end] == 0) {
    order.kind = Order::kRandom;
    order.random.seed(seed);
  } else {
    fail("ADSQ_EMULATOR_ORDER must be forward, reverse, warp or random:SEED, not '%s'", text);
  }
  return order;
}

void check(const Launch& launch) {
  const dim3 g = launch.grid, b = launch.block;
  const uint64_t threads = uint64_t{1} * b.x * b.y * b.z;
  if (g.x < 1 || g.y < 1 || g.z < 1 || g.x > 0x7fffffffu || g.y > 65535 || g.z > 65535) {
    fail("a grid must be 1 to (2147483647, 65535, 65535), not (%u, %u, %u)", g.x, g.y, g.z);
  }
  if (threads < 1 || threads > 1024 || b.x > 1024 || b.y > 1024 || b.z > 64) {
    fail("a block must have 1 to 1024 threads and at most (1024, 1024, 64), not (%u, %u, %u)", b.x, b.y, b.z);
  }
  if (threads > launch.launch_bounds) {
    fail("a block of %zu threads exceeds the kernel's launch bounds of %u", size_t{threads}, launch.launch_bounds);
  }
  if (launch.shared_limit > kMaxShared) {
    fail("shared_limit must be at most %zu bytes, not %zu", kMaxShared, launch.shared_limit);
  }
  const size_t limit = launch.shared_limit ? launch.shared_limit : kDefaultShared;
  if (launch.dynamic_shared > limit) {
    fail("%zu bytes of dynamic shared memory exceed the %zu that %s", launch.dynamic_shared, limit,
         launch.shared_limit ? "the launcher asked for" : "a kernel has without asking for more");
  }
  const uint64_t blocks = uint64_t{1} * g.x * g.y * g.z;
  if (races() && (blocks > kRaceThreads || blocks * threads > kRaceThreads)) {
    fail("ThreadSanitizer holds at most %zu threads a launch, not %zu blocks of %zu", kRaceThreads, size_t{blocks},
         size_t{threads});
  }
}

const uint3& thread_index() { return now.lane->index; }
const uint3& block_index() { return now.block_index; }
const dim3& block_size() { return now.launch.block; }
const dim3& grid_size() { return now.launch.grid; }

void* shared(const void* key, size_t size, size_t alignment) {
  void* memory = nullptr;
  size_t total = key ? size : 0;
  for (const Shared& object : now.block->shared) {
    if (object.key == key) memory = object.memory;
    if (object.key != nullptr) total += object.size;
  }
  if (memory == nullptr) {
    // On the host's behalf: the lane that comes first must not seem to be ordered before the others.
    void* const self = races() ? __tsan_get_current_fiber() : nullptr;
    if (races()) __tsan_switch_to_fiber(now.tsan, 1);
    const size_t dynamic = now.launch.dynamic_shared, limit = now.launch.shared_limit ? kMaxShared : kDefaultShared;
    if (total > kDefaultShared || total + dynamic > limit) {
      fail("%zu bytes of static and %zu of dynamic shared memory exceed %zu and %zu together", total, dynamic,
           kDefaultShared, limit);
    }
    if (key == nullptr) size = dynamic;
    if (posix_memalign(&memory, alignment < 16 ? 16 : alignment, size ? size : 1) != 0) fail("no memory left");
    std::memset(memory, 0xA5, size);
    now.block->shared.push_back({key, memory, size});
    release(memory);
    if (races()) __tsan_switch_to_fiber(self, 1);
  }
  acquire(memory);
  return memory;
}

void check_aligned(const void* address, size_t alignment, const char* call, Site site) {
  if (reinterpret_cast<uintptr_t>(address) % alignment != 0) {
    fail("%s at %s:%d: address %p is not a multiple of %zu", call, site.file, site.line, address, alignment);
  }
}

void before_atomic(void* address) {
  if (now.lane->publishes) release(address);
  now.lane->publishes = false;
}

void after_atomic(void* address) {
  now.lane->last_atomic = address;
  ++now.impatience;
  to_scheduler();
}

void fence() {
  if (now.lane->last_atomic) acquire(now.lane->last_atomic);
  now.lane->publishes = true;
}

}  // namespace emulator

// Called by the sanitizers after their own report
extern "C" void __asan_on_error() { emulator::print_where(); }
extern "C" void __tsan_on_report(const void*) { emulator::print_where(); }
