// For any machine. Vectors of 128 bits, which compilers turn into SSE2 or NEON.
#include "cpu/hamming_places.h"

namespace adsq::cpu::generic {
namespace {

struct Planes {
  typedef uint64_t Plane __attribute__((vector_size(16)));
  static Plane load(const void* from) { return *static_cast<const Plane*>(from); }
  static Plane load_unaligned(const void* from) {
    Plane a;
    __builtin_memcpy(&a, from, sizeof(a));
    return a;
  }
  static void store(void* to, Plane a) { *static_cast<Plane*>(to) = a; }
  static Plane ones() { return Plane{~uint64_t{0}, ~uint64_t{0}}; }
  static Plane exclusive_or(Plane a, Plane b) { return a ^ b; }
  static Plane exclusive_or3(Plane a, Plane b, Plane c) { return a ^ b ^ c; }
  static Plane majority(Plane a, Plane b, Plane c) { return ((a ^ b) & c) | (a & b); }
  static Plane add(Plane& sum, Plane a, Plane b) {
    const Plane either = a ^ b, carry = (either & sum) | (a & b);
    sum ^= either;
    return carry;
  }
  static Plane both(Plane a, Plane b) { return a & b; }
  static Plane without(Plane a, Plane b) { return a & ~b; }
  static bool any(Plane a) { return (a[0] | a[1]) != 0; }
  static int words_in_use(Plane a, uint32_t first, uint32_t* to) {
    to[0] = first;
    to[a[0] != 0] = first + 1;
    return (a[0] != 0) + (a[1] != 0);
  }
  static void add_counts(const Plane* at, uint32_t* counts, uint32_t* before) {
    add_counts_of_words(at, counts, before);
  }
  static void transpose(const uint64_t* words, Plane* planes) { transpose_by_swaps<Planes>(words, planes); }
};

struct Isa : PlainIsa {
  static constexpr int kCodes = 1;
  using Distances = int64_t;
  static Distances broadcast(int64_t value) { return value; }
  static Distances load_words(const void* words) {
    Distances word;
    __builtin_memcpy(&word, words, sizeof(word));
    return word;
  }
  template <int kWords>
  static Distances repeated(const uint64_t* words) {
    return load_words(words);
  }
  static Distances differing(Distances words, Distances query) {
    return count_bits(static_cast<uint64_t>(words ^ query));
  }
  struct RowReader {
    int64_t width;
    explicit RowReader(int64_t row_width) : width(row_width) {}
    Distances distances(const uint8_t* codes, const uint64_t* query) const { return row_distance(codes, width, query); }
  };
  static Distances add(Distances a, Distances b) { return a + b; }
  static Distances low(Distances a, Distances b) { return a < b ? a : b; }
  static unsigned within(Distances a, Distances limit) { return a <= limit; }
  static void store(uint64_t* to, Distances a) { *to = static_cast<uint64_t>(a); }
  static void narrow(uint16_t* to, const Distances* d) {
    for (int v = 0; v < kGroup; ++v) to[v] = static_cast<uint16_t>(d[v]);
  }
};

}  // namespace

const ScanKernels kScanKernels = kernels_of<Planes, Isa>(16, 20, 22);

}  // namespace adsq::cpu::generic
