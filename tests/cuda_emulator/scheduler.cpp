// Scheduler of the emulator: fibers and what they wait for. Built without sanitizers, as checks.cpp is, so that the
// emulator's own state is not watched.
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>

#include "state.h"

namespace emulator {

Now now;

namespace {

constexpr size_t kStack = 256 << 10, kGuard = 4096;
constexpr unsigned kTickets = 1 << 16;       // places for ThreadSanitizer to keep an order in, used in turn
constexpr unsigned kWarpPatience = 1 << 10;  // atomics in a row before a warp that runs first lets others run

void lane_main() {
  if (__sanitizer_finish_switch_fiber) {
    __sanitizer_finish_switch_fiber(nullptr, &now.host_stack, &now.host_stack_bytes);
  }
  now.body(now.argument);
  release(&now.end);
  now.lane->state = State::kDone;
  --now.left;
  now.impatience = 0;
  to_scheduler();
}

void to_lane(Lane& lane) {
  now.lane = &lane;
  if (__sanitizer_start_switch_fiber) {
    __sanitizer_start_switch_fiber(&now.fake_stack, lane.context.uc_stack.ss_sp, lane.context.uc_stack.ss_size);
  }
  if (races()) __tsan_switch_to_fiber(lane.tsan, 1);  // 1: the switch orders nothing
  swapcontext(&now.scheduler, &lane.context);
  if (__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber(now.fake_stack, nullptr, nullptr);
  now.lane = nullptr;
}

// The next lane that can go on after the one that ran last; nullptr: none.
Lane* pick() {
  Lane* lanes = now.block->lanes.get();
  const unsigned n = now.threads, warp = now.cursor / 32 * 32, width = n - warp < 32 ? n - warp : 32;
  unsigned start = now.order.kind == Order::kRandom ? now.order.random() % n : now.cursor + 1;
  if (now.order.kind == Order::kWarp && now.impatience < kWarpPatience) {
    for (unsigned i = 0; i < width; ++i) {
      const unsigned at = warp + (start - warp + i) % width;
      if (lanes[at].state == State::kReady) return &lanes[now.cursor = at];
    }
  }
  for (unsigned i = 0; i < n; ++i) {
    const unsigned at = now.order.kind == Order::kReverse ? (now.cursor + 2 * n - 1 - i) % n : (start + i) % n;
    if (lanes[at].state == State::kReady) return &lanes[now.cursor = at];
  }
  return nullptr;
}

void start_lane(unsigned number) {
  Lane& lane = now.block->lanes[number];
  const dim3 size = now.launch.block;
  std::memset(static_cast<void*>(&lane), 0, sizeof(Lane));
  lane.tsan = races() ? __tsan_create_fiber(0) : nullptr;
  lane.index = {number % size.x, number / size.x % size.y, number / size.x / size.y};
  getcontext(&lane.context);
  lane.context.uc_stack.ss_sp = now.block->stacks + number * kStack + kGuard;
  lane.context.uc_stack.ss_size = kStack - kGuard;
  makecontext(&lane.context, lane_main, 0);
}

void run_block(uint64_t number) {
  const dim3 grid = now.launch.grid;
  now.block_index = {static_cast<unsigned>(number % grid.x), static_cast<unsigned>(number / grid.x % grid.y),
                     static_cast<unsigned>(number / grid.x / grid.y)};
  for (unsigned i = 0; i < now.threads; ++i) start_lane(i);
  now.cursor = now.order.kind == Order::kReverse ? 0 : now.threads - 1;
  if (now.order.kind == Order::kWarp) now.cursor = 31;
  if (now.cursor >= now.threads) now.cursor = now.threads - 1;
  now.impatience = 0;
  for (now.left = now.threads; now.left > 0;) {
    Lane* lane = pick();
    if (lane == nullptr) fail_with_waits("deadlock or divergence: threads wait for others that have not come");
    if (now.impatience > now.launch.patience) fail_with_waits("livelock: only atomics, and no thread gets ahead");
    to_lane(*lane);
  }
}

// Waits until all lanes that `mask` names (0: of the block) wait at the same call. Votes and shuffles order no memory.
void arrive(const char* call, unsigned mask, uint64_t value, Site site) {
  const bool orders = mask == 0 || std::strcmp(call, "__syncwarp") == 0;
  Lane& self = *now.lane;
  Lane* const lanes = now.block->lanes.get();
  const unsigned number = static_cast<unsigned>(&self - lanes), warp = number / 32 * 32;
  const unsigned first = mask ? warp : 0, end = mask && warp + 32 < now.threads ? warp + 32 : now.threads;
  self.call = call, self.mask = mask, self.value = value, self.site = site;
  self.state = State::kWaiting;
  self.ticket = nullptr;
  bool all = mask == 0 || end - first == 32 || mask >> (end - first) == 0;  // lanes that do not exist never come
  for (unsigned i = first; i < end; ++i) {
    if (mask && !(mask >> (i - first) & 1)) continue;
    if (!same_wait(lanes[i], self)) {
      all = false;
    } else if (&lanes[i] != &self) {
      self.ticket = lanes[i].ticket;
    }
  }
  if (self.ticket == nullptr) self.ticket = now.tickets + now.next_ticket++ % kTickets * 8;
  if (orders) release(self.ticket);
  if (all) {
    now.impatience = 0;
    for (unsigned i = first; i < end; ++i) {
      if (mask && !(mask >> (i - first) & 1)) continue;
      for (unsigned j = first; mask && j < end; ++j) lanes[i].gathered[j - first] = lanes[j].value;
      lanes[i].state = State::kReady;
    }
  }
  to_scheduler();
  if (orders) acquire(self.ticket);
}

}  // namespace

void to_scheduler() {
  Lane& lane = *now.lane;
  const bool last = lane.state == State::kDone;
  if (__sanitizer_start_switch_fiber) {
    __sanitizer_start_switch_fiber(last ? nullptr : &lane.fake_stack, now.host_stack, now.host_stack_bytes);
  }
  if (races()) __tsan_switch_to_fiber(now.tsan, 1);
  swapcontext(&lane.context, &now.scheduler);
  if (__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber(lane.fake_stack, nullptr, nullptr);
}

// Stacks are kept for later blocks of as many threads: to map them takes longer than a small kernel does.
std::map<size_t, std::vector<char*>> kept_stacks;

Block::Block(size_t threads) : lanes(new Lane[threads]), threads(threads) {
  std::vector<char*>& kept = kept_stacks[threads];
  if (!kept.empty()) {
    stacks = kept.back();
    kept.pop_back();
    return;
  }
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  stacks = static_cast<char*>(mmap(nullptr, threads * kStack, PROT_READ | PROT_WRITE, flags, -1, 0));
  if (stacks == MAP_FAILED) fail("no memory for the stacks of %zu threads", threads);
  for (size_t i = 0; i < threads; ++i) mprotect(stacks + i * kStack, kGuard, PROT_NONE);
}

Block::~Block() {
  free_shared();
  kept_stacks[threads].push_back(stacks);
}

void Block::free_shared() {
  for (const Shared& object : shared) std::free(object.memory);
  shared.clear();
}

void run(const Launch& launch, const char* kernel, void (*body)(void*), void* argument) {
  if (now.kernel != nullptr) fail("a kernel cannot launch %s", kernel);
  now.kernel = kernel;
  check(launch);
  now.launch = launch;
  now.body = body, now.argument = argument;
  now.order = read_order();
  now.threads = launch.block.x * launch.block.y * launch.block.z;
  now.tsan = races() ? __tsan_get_current_fiber() : nullptr;
  const std::unique_ptr<char[]> tickets(new char[kTickets * 8]);
  now.tickets = tickets.get();
  const uint64_t count = uint64_t{1} * launch.grid.x * launch.grid.y * launch.grid.z;
  std::vector<uint64_t> shuffled(now.order.kind == Order::kRandom ? count : 0);
  for (uint64_t i = 0; i < shuffled.size(); ++i) shuffled[i] = i;
  std::shuffle(shuffled.begin(), shuffled.end(), now.order.random);
  std::vector<std::unique_ptr<Block>> blocks;
  for (uint64_t i = 0; i < count; ++i) {
    if (blocks.empty() || races()) blocks.emplace_back(new Block(now.threads));
    now.block = blocks.back().get();
    run_block(now.order.kind == Order::kReverse ? count - 1 - i : shuffled.empty() ? i : shuffled[i]);
    if (!races()) now.block->free_shared();
  }
  acquire(&now.end);
  for (const auto& block : blocks) {
    for (unsigned i = 0; races() && i < now.threads; ++i) __tsan_destroy_fiber(block->lanes[i].tsan);
  }
  now.kernel = nullptr;
}

void barrier(const char* call, Site site) { arrive(call, 0, 0, site); }

const uint64_t* exchange(const char* call, unsigned mask, uint64_t value, Site site) {
  const unsigned lane = static_cast<unsigned>(now.lane - now.block->lanes.get()) % 32;
  if (!(mask >> lane & 1)) {
    fail("%s at %s:%d: lane %u calls with mask 0x%08x, which leaves it out", call, site.file, site.line, lane, mask);
  }
  arrive(call, mask, value, site);
  return now.lane->gathered;
}
}  // namespace emulator
