// CUDA's device functions on top of the emulator's runtime; cuda_emulator.h is the header to include.
#pragma once
#include <cmath>
#include <cstring>
#include <type_traits>

#include "runtime.h"

struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) ulonglong2 {
  unsigned long long x, y;
};
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline ulonglong2 make_ulonglong2(unsigned long long x, unsigned long long y) { return {x, y}; }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(x); }
inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned long long __brevll(unsigned long long x) {
  unsigned long long reversed = 0;
  for (int bit = 0; bit < 64; ++bit) reversed |= (x >> bit & 1) << (63 - bit);
  return reversed;
}
inline unsigned __brev(unsigned x) { return static_cast<unsigned>(__brevll(x) >> 32); }
template <typename A, typename B>
constexpr std::common_type_t<A, B> min(A a, B b) {
  const std::common_type_t<A, B> x = a, y = b;
  return y < x ? y : x;
}
template <typename A, typename B>
constexpr std::common_type_t<A, B> max(A a, B b) {
  const std::common_type_t<A, B> x = a, y = b;
  return x < y ? y : x;
}

namespace emulator {

constexpr unsigned kAll = 0xffffffffu;
template <typename T>
struct Same {
  using type = T;
};

template <typename T>
uint64_t to_bits(T value) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}
template <typename T>
T from_bits(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

inline unsigned lane() {
  const uint3 i = thread_index();
  return (i.x + block_size().x * (i.y + block_size().y * i.z)) % 32;
}

// `source` is the lane to read, -1 its own.
template <typename T>
T shuffle(const char* call, unsigned mask, T value, int width, int source, Site site) {
  if (width < 1 || width > 32 || (width & (width - 1)) != 0) {
    fail("%s at %s:%d: width must be a power of two up to 32, not %d", call, site.file, site.line, width);
  }
  const int from = source < 0 ? static_cast<int>(lane()) : source;
  if ((mask >> from & 1) == 0) {
    fail("%s at %s:%d reads lane %d, which is not in the mask 0x%08x", call, site.file, site.line, from, mask);
  }
  return from_bits<T>(exchange(call, mask, to_bits(value), site)[from]);
}

template <typename T, typename Combine>
T reduce(const char* call, unsigned mask, T value, Site site, Combine combine) {
  static_assert(std::is_same_v<T, unsigned> || std::is_same_v<T, int>);
  const uint64_t* values = exchange(call, mask, to_bits(value), site);
  T total = from_bits<T>(values[__ffs(mask) - 1]);
  for (int i = __ffs(mask); i < 32; ++i) {
    if (mask >> i & 1) total = combine(total, from_bits<T>(values[i]));
  }
  return total;
}

template <typename T>
T wrapping_add(T a, T b) {
  if constexpr (std::is_integral_v<T>) {
    using U = std::make_unsigned_t<T>;
    return static_cast<T>(static_cast<U>(a) + static_cast<U>(b));
  } else {
    return a + b;
  }
}

template <typename T, typename Change>
T atomic(const char* call, T* address, Site site, Change change) {
  static_assert(std::is_same_v<T, int> || std::is_same_v<T, unsigned> || std::is_same_v<T, unsigned long long> ||
                    std::is_same_v<T, float>,
                "atomics are there for int, unsigned, unsigned long long and float");
  check_aligned(address, sizeof(T), call, site);
  before_atomic(address);
  T old, changed;
  __atomic_load(address, &old, __ATOMIC_RELAXED);
  do {
    changed = change(old);
  } while (!__atomic_compare_exchange(address, &old, &changed, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  after_atomic(address);
  return old;
}

}  // namespace emulator

inline void __syncthreads(emulator::Site site = emulator::Site::here()) { emulator::barrier("__syncthreads", site); }
inline void __syncwarp(unsigned mask = emulator::kAll, emulator::Site site = emulator::Site::here()) {
  emulator::exchange("__syncwarp", mask, 0, site);
}
void __activemask() = delete;
inline void __threadfence_block() { emulator::fence(); }
inline void __threadfence() { emulator::fence(); }

inline unsigned __ballot_sync(unsigned mask, int predicate, emulator::Site site = emulator::Site::here()) {
  const uint64_t* values = emulator::exchange("__ballot_sync", mask, predicate != 0, site);
  unsigned votes = 0;
  for (int i = 0; i < 32; ++i) votes |= (mask >> i & 1 ? static_cast<unsigned>(values[i]) : 0u) << i;
  return votes;
}
inline int __any_sync(unsigned mask, int predicate, emulator::Site site = emulator::Site::here()) {
  return __ballot_sync(mask, predicate, site) != 0;
}
inline int __all_sync(unsigned mask, int predicate, emulator::Site site = emulator::Site::here()) {
  return __ballot_sync(mask, predicate, site) == mask;
}
template <typename T>
unsigned __match_any_sync(unsigned mask, T value, emulator::Site site = emulator::Site::here()) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  const uint64_t* values = emulator::exchange("__match_any_sync", mask, emulator::to_bits(value), site);
  unsigned equal = 0;
  for (int i = 0; i < 32; ++i) {
    if ((mask >> i & 1) && values[i] == emulator::to_bits(value)) equal |= 1u << i;
  }
  return equal;
}

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, emulator::Site site = emulator::Site::here()) {
  const int first = emulator::lane() & -width;
  return emulator::shuffle("__shfl_sync", mask, value, width, first + (source & (width - 1)), site);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, emulator::Site site = emulator::Site::here()) {
  const int lane = emulator::lane(), source = lane - static_cast<int>(delta);
  return emulator::shuffle("__shfl_up_sync", mask, value, width, source < (lane & -width) ? -1 : source, site);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   emulator::Site site = emulator::Site::here()) {
  const int lane = emulator::lane(), source = lane + static_cast<int>(delta);
  return emulator::shuffle("__shfl_down_sync", mask, value, width, source >= (lane & -width) + width ? -1 : source,
                           site);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, emulator::Site site = emulator::Site::here()) {
  const int lane = emulator::lane(), source = lane ^ bits;  // lanes of earlier groups can be read, of later ones not
  return emulator::shuffle("__shfl_xor_sync", mask, value, width, source >= (lane & -width) + width ? -1 : source,
                           site);
}

template <typename T>
T __reduce_add_sync(unsigned mask, T value, emulator::Site site = emulator::Site::here()) {
  return emulator::reduce("__reduce_add_sync", mask, value, site, emulator::wrapping_add<T>);
}
template <typename T>
T __reduce_min_sync(unsigned mask, T value, emulator::Site site = emulator::Site::here()) {
  return emulator::reduce("__reduce_min_sync", mask, value, site, min<T, T>);
}
template <typename T>
T __reduce_max_sync(unsigned mask, T value, emulator::Site site = emulator::Site::here()) {
  return emulator::reduce("__reduce_max_sync", mask, value, site, max<T, T>);
}

template <typename T>
T __ldg(const T* address, emulator::Site site = emulator::Site::here()) {
  emulator::check_aligned(address, alignof(T), "__ldg", site);
  return *address;
}

#define ADSQ_ATOMIC(name, result)                                                                            \
  template <typename T>                                                                                      \
  T name(T* address, typename emulator::Same<T>::type value, emulator::Site site = emulator::Site::here()) { \
    return emulator::atomic(#name, address, site, [value](T old) -> T { return result; });                   \
  }
ADSQ_ATOMIC(atomicAdd, emulator::wrapping_add(old, value))
ADSQ_ATOMIC(atomicMin, min(old, value))
ADSQ_ATOMIC(atomicMax, max(old, value))
ADSQ_ATOMIC(atomicOr, old | value)
ADSQ_ATOMIC(atomicAnd, old& value)
ADSQ_ATOMIC(atomicExch, ((void)old, value))
#undef ADSQ_ATOMIC
template <typename T>
T atomicCAS(T* address, typename emulator::Same<T>::type compare, typename emulator::Same<T>::type value,
            emulator::Site site = emulator::Site::here()) {
  return emulator::atomic("atomicCAS", address, site, [=](T old) { return old == compare ? value : old; });
}
