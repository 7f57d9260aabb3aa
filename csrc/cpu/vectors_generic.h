// Vectors of float and double of 16 bytes, in the language of gcc and clang: any processor; see vectors_avx512.h.
#pragma once
#include <cstring>

#include "element.h"

namespace adsq::cpu::generic {

// Words beside four floats, and beside two doubles.
struct FourWords {
  typedef uint32_t Unsigned __attribute__((vector_size(16)));
  typedef int32_t Signed __attribute__((vector_size(16)));
};
struct TwoWords {
  typedef uint32_t Unsigned __attribute__((vector_size(8)));
  typedef int32_t Signed __attribute__((vector_size(8)));
};

template <typename Real, typename Integer, typename WordVectors, int kBits, int kBias>
struct Lanes {
  using Scalar = Real;
  static constexpr int kLanes = 16 / sizeof(Real);
  static constexpr int kRows = 4;
  typedef Real Vector __attribute__((vector_size(16)));
  typedef Integer Mask __attribute__((vector_size(16)));  // all bits of a lane, or none
  using Words = typename WordVectors::Unsigned;
  using Integers = typename WordVectors::Signed;
  static constexpr Real kLowestExponent = sizeof(Real) == 4 ? -88.02 : -709.08;

  static Vector zero() { return Vector{}; }
  static Vector set(Real a) { return a - Vector{}; }
  static Vector load(const Real* from) {
    Vector a;
    std::memcpy(&a, from, sizeof(a));
    return a;
  }
  template <typename Half>
  static Vector load(const Half* from) {
    Vector a;
    for (int i = 0; i < kLanes; ++i) a[i] = to_float(from[i]);
    return a;
  }
  static void store(Real* to, Vector a) { std::memcpy(to, &a, sizeof(a)); }
  static Vector add(Vector a, Vector b) { return a + b; }
  static Vector subtract(Vector a, Vector b) { return a - b; }
  static Vector multiply(Vector a, Vector b) { return a * b; }
  static Vector divide(Vector a, Vector b) { return a / b; }
  static Vector multiply_add(Vector a, Vector b, Vector c) { return a * b + c; }
  static Vector subtract_product(Vector c, Vector a, Vector b) { return c - a * b; }
  static Vector larger(Vector a, Vector b) { return a > b ? a : b; }
  static Vector minus_magnitude(Vector a) { return as_vector(as_mask(a) | as_mask(set(-Real(0)))); }
  // Adding a number whose last bit counts ones rounds to the nearest one.
  static Vector round(Vector a) {
    const Vector ones = set(Real(3) * Real(Integer(1) << (kBits - 1)));
    return (a + ones) - ones;
  }
  static Vector times_power_of_two(Vector a, Vector n) {
    return a * as_vector((__builtin_convertvector(n, Mask) + kBias) << kBits);
  }
  static Mask at_least_zero(Vector a) { return a >= zero(); }
  static Vector select(Mask mask, Vector a, Vector b) { return mask ? a : b; }
  static Vector negate_where(Mask mask, Vector a) { return as_vector(as_mask(a) ^ (mask & as_mask(set(-Real(0))))); }

  static Mask all() { return ~Mask{}; }
  static Mask none() { return Mask{}; }
  static Mask both(Mask a, Mask b) { return a & b; }
  static Mask either(Mask a, Mask b) { return a | b; }
  static Words zero_words() { return Words{}; }
  static Words load_words(const uint32_t* from) {
    Words a;
    std::memcpy(&a, from, sizeof(a));
    return a;
  }
  static Mask equal(Words a, uint32_t b) { return __builtin_convertvector(Integers(a == b), Mask); }
  static Mask have_common_bit(Words a, uint32_t b) { return __builtin_convertvector(Integers((a & b) != 0), Mask); }
  static Words add_common_bits(Words count, Words a, uint32_t b) {
    for (int i = 0; i < kLanes; ++i) count[i] += static_cast<uint32_t>(__builtin_popcount(a[i] & b));
    return count;
  }
  static Vector to_vector(Words a) { return __builtin_convertvector(Integers(a), Vector); }

 private:
  static Mask as_mask(Vector a) { return (Mask)a; }
  static Vector as_vector(Mask a) { return (Vector)a; }
};

using Float32 = Lanes<float, int32_t, FourWords, 23, 127>;
using Float64 = Lanes<double, int64_t, TwoWords, 52, 1023>;

}  // namespace adsq::cpu::generic
