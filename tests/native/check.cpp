#include "check.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <thread>

#include "cpu/simd.h"

namespace adsq::test {

// Never destroyed: ThreadSanitizer reports at the very end.
std::string& context = *new std::string;
int64_t num_checks = 0;
bool threads_are_real = true;

void fail(const char* file, int line, const std::string& what) {
  std::fprintf(stderr, "%s:%d: %s\n", file, line, what.c_str());
  std::fprintf(stderr, "while testing %s\n", context.c_str());
  std::exit(1);
}

std::shared_ptr<uint8_t> allocate(size_t bytes, int64_t offset) {
  if (offset != kPageEnd) {
    const auto before = static_cast<size_t>(offset);
    const std::shared_ptr<uint8_t> memory(new uint8_t[before + bytes], std::default_delete<uint8_t[]>());
    return {memory, memory.get() + before};
  }
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE)), size = (bytes + page - 1) / page * page;
  void* pages = mmap(nullptr, size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(pages != MAP_FAILED);
  auto* start = static_cast<uint8_t*>(pages);
  CHECK(mprotect(start + size, page, PROT_NONE) == 0);
  const std::shared_ptr<uint8_t> memory(start, [size, page](uint8_t* first) { munmap(first, size + page); });
  return {memory, start + size - bytes};
}

RealThreads::RealThreads(int64_t count)
    : threads{count, [this](int64_t tasks, const std::function<void(int64_t)>& task) {
                ++runs;
                CHECK(tasks >= 0);
                most_tasks = std::max(most_tasks, tasks);
                if (!threads_are_real) {
                  for (int64_t i = tasks; i-- > 0;) task(i);
                  return;
                }
                std::vector<std::thread> running;
                for (int64_t t = 0; t < std::min(tasks, threads.count); ++t) {
                  running.emplace_back([=] {
                    for (int64_t i = t; i < tasks; i += threads.count) task(i);
                  });
                }
                for (std::thread& thread : running) thread.join();
              }} {}

std::vector<std::string> variants() {
  std::vector<std::string> found;
  const char* names[] = {"generic", "avx2", "avx512bw", "avx512"};
  for (int i = 0; i < 4; ++i) {
    if (cpu::is_supported(static_cast<cpu::Simd>(i))) found.push_back(names[i]);
  }
  return found;
}

void for_every_way(const std::vector<int64_t>& thread_counts, const std::function<void(RealThreads&)>& run) {
  const std::string outer = context;
  for (const std::string& variant : variants()) {
    setenv("ADSQ_SIMD", variant.c_str(), 1);
    for (const int64_t count : thread_counts) {
      context = outer + ", " + variant + ", " + std::to_string(count) + " threads";
      RealThreads threads(count);
      run(threads);
    }
  }
  context = outer;
}

}  // namespace adsq::test
