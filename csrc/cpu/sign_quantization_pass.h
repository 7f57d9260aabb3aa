// The pass of sign_quantization.h, written once for every instruction set in the compilers' own vectors, as long as
// the instructions that a file is compiled for have them.
//
// A step takes 64 bytes of float or double, however many vectors these are, so that every variant adds up the loss in
// the same order. setup.py forbids the compiler to fuse products and sums (-ffp-contract): codes would differ from
// PyTorch's where the sum is close to zero.
//
// In an unnamed namespace, for the reason given in hamming_direct.h.
#pragma once
#include <type_traits>

#include "cpu/sign_quantization.h"
#include "cpu/vectors.h"

namespace adsq::cpu {
namespace {

constexpr int64_t kStepBytes = 64;
constexpr int64_t kBlockSteps = 64;  // steps that are summed in float before their sum goes to double

// How elements T are read, and codes, +1 and -1, are written.
template <typename T>
struct Format {
  using Stored = Floats;
  static ADSQ_INLINE Floats widen(Stored a) { return a; }
  static ADSQ_INLINE Stored narrow(Floats code) { return code; }
};
template <>
struct Format<double> {
  using Stored = Doubles;
  static ADSQ_INLINE Doubles widen(Stored a) { return a; }
  static ADSQ_INLINE Stored narrow(Doubles code) { return code; }
};
template <>
struct Format<BFloat16> {
  using Stored = Halves;
  static ADSQ_INLINE Floats widen(Stored a) { return cpu::widen(a, BFloat16{}); }
  static ADSQ_INLINE Stored narrow(Floats code) { return __builtin_convertvector((Words)code >> 16, Halves); }
};
template <>
struct Format<Float16> {
  using Stored = Halves;
  static ADSQ_INLINE Floats widen(Stored a) { return cpu::widen(a, Float16{}); }
  static ADSQ_INLINE Stored narrow(Floats code) { return (Format<BFloat16>::narrow(code) & 0x8000) | Float16::kOne; }
};

template <typename T>
struct Pass {
  using Layout = Format<T>;
  using Reals = decltype(Layout::widen(typename Layout::Stored{}));
  using Real = std::conditional_t<std::is_same_v<T, double>, double, float>;
  using Bits = decltype(Reals{} >= Reals{});
  static constexpr int64_t kLanes = sizeof(Reals) / sizeof(Real);
  static constexpr int64_t kVectors = kStepBytes / static_cast<int64_t>(sizeof(Reals));
  static constexpr int64_t kStep = kVectors * kLanes;

  const SignQuantization& task;
  Reals anchor_weight, factor;
  Reals sums[kVectors] = {};

  explicit Pass(const SignQuantization& pass)
      : task(pass),
        anchor_weight(Reals{} + static_cast<Real>(pass.anchor_weight)),
        factor(Reals{} + static_cast<Real>(pass.factor)) {}

  // The vector at entry i of an array. Where not all are there, `count` of them, and zeros.
  template <bool kAll>
  static ADSQ_INLINE Reals load(const void* array, int64_t i, int64_t count) {
    typename Layout::Stored stored = {};
    __builtin_memcpy(&stored, static_cast<const T*>(array) + i, kAll ? sizeof(stored) : count * sizeof(T));
    return Layout::widen(stored);
  }

  template <bool kAll, typename U, class Vector>
  static ADSQ_INLINE void store(void* array, int64_t i, int64_t count, Vector vector) {
    __builtin_memcpy(static_cast<U*>(array) + i, &vector, kAll ? sizeof(vector) : count * sizeof(U));
  }

  template <bool kAll>
  ADSQ_INLINE Reals code(int64_t i, int64_t count) const {
    if (task.codes != nullptr) return load<kAll>(task.codes, i, count);
    Reals total = load<kAll>(task.features[0], i, count);
    for (int64_t f = 1; f < task.num_features; ++f) total += load<kAll>(task.features[f], i, count);
    if (task.anchor != nullptr) total += anchor_weight * load<kAll>(task.anchor, i, count);
    const Bits minus = ~(total >= Reals{}) & (Bits)(-Reals{});
    const Reals sign = (Reals)((Bits)(Reals{} + 1) | minus);
    store<kAll, T>(task.signs, i, count, Layout::narrow(sign));
    return sign;
  }

  // Entries i..i+count-1, all of them lanes of one vector.
  template <bool kAll>
  ADSQ_INLINE void add(int64_t i, int64_t count, Reals& sum) const {
    const Reals target = code<kAll>(i, count);
    Bits used = {};
    if (!kAll) {
      for (int64_t lane = 0; lane < count; ++lane) used[lane] = -1;
    }
    for (int64_t f = 0; f < task.num_features; ++f) {
      Reals difference = load<kAll>(task.features[f], i, count) - target;
      if (!kAll) difference = (Reals)((Bits)difference & used);
      const Bits minus = (Bits)difference & (Bits)(-Reals{});
      sum += task.squared ? difference * difference : (Reals)((Bits)difference ^ minus);
      if (task.gradients[f] == nullptr) continue;
      Reals slope = difference;
      if (!task.squared) {
        // the sign, and a number that is none as it is
        const Bits one = (Bits)(difference != Reals{}) & (Bits)(Reals{} + 1);
        const Bits none = difference != difference;
        slope = (Reals)((none & (Bits)difference) | (~none & (one | minus)));
      }
      store<kAll, Real>(task.gradients[f], i, count, slope * factor);
    }
  }

  double run(int64_t first, int64_t last) {
    double total = 0;
    for (int64_t block = first; block < last; block += kBlockSteps * kStep) {
      for (Reals& sum : sums) sum = Reals{};
      const int64_t end = block + kBlockSteps * kStep < last ? block + kBlockSteps * kStep : last;
      int64_t i = block;
      for (; i + kStep <= end; i += kStep) {
        for (int64_t v = 0; v < kVectors; ++v) add<true>(i + v * kLanes, kLanes, sums[v]);
      }
      for (int64_t v = 0; i < end; ++v, i += kLanes) {
        if (i + kLanes <= end) {
          add<true>(i, kLanes, sums[v]);
        } else {
          add<false>(i, end - i, sums[v]);
        }
      }
      for (const Reals& sum : sums) {
        for (int64_t lane = 0; lane < kLanes; ++lane) total += static_cast<double>(sum[lane]);
      }
    }
    return total;
  }
};

double sign_quantization_pass(const SignQuantization& task, int64_t first, int64_t last) {
  switch (task.element) {
    case Element::kFloat16: return Pass<Float16>(task).run(first, last);
    case Element::kBFloat16: return Pass<BFloat16>(task).run(first, last);
    case Element::kFloat64: return Pass<double>(task).run(first, last);
    default: return Pass<float>(task).run(first, last);
  }
}

}  // namespace
}  // namespace adsq::cpu
