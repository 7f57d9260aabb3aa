// Sign quantization: every variant and element type against a loop in double, at the ends of pages.
#include "cpu/sign_quantization.h"

#include <cstdlib>

#include "search.h"

namespace adsq::test {
namespace {

template <typename T>
T random_number(Random& random) {
  const double number = static_cast<double>(random.below(8193) - 4096) / 1024;  // exact in float, sums too
  if constexpr (std::is_arithmetic_v<T>) {
    return static_cast<T>(number);
  } else {
    T half;  // sign and two bits of the fraction, of numbers from 1/16 to 7
    const auto one = static_cast<uint16_t>(T::kOne);
    const int fraction_bits = std::is_same_v<T, Float16> ? 10 : 7;
    half.bits = static_cast<uint16_t>(
        (random.below(2) << 15) | (one + ((random.below(7) - 4) * 4 + random.below(4)) * (1 << (fraction_bits - 2))));
    if (random.chance(9)) half.bits &= 0x8000;
    return half;
  }
}

template <typename T>
Buffer<T> random_numbers(int64_t count, Random& random) {
  const Buffer<T> numbers(count, kPageEnd);
  for (int64_t i = 0; i < count; ++i) numbers[i] = random_number<T>(random);
  return numbers;
}

// Entries first..last-1 only: the others keep their garbage. Numbers are such that nothing is rounded but the sum.
template <typename T, typename Real>
void compare(Element element, int64_t count, int64_t first, int64_t num_features, Random& random) {
  const bool given = random.chance(3), anchored = random.chance(2), squared = random.chance(2);
  const int64_t last = random.chance(2) ? count : first + random.below(count - first + 1);
  std::vector<Buffer<T>> features;
  std::vector<Buffer<Real>> gradients;
  std::vector<const void*> feature_data;
  std::vector<void*> gradient_data;
  for (int64_t f = 0; f < num_features; ++f) {
    features.push_back(random_numbers<T>(count, random));
    gradients.emplace_back(random.chance(4) ? 0 : count, kPageEnd);
    feature_data.push_back(features.back().data());
    gradient_data.push_back(gradients.back().data());
  }
  const Buffer<T> codes = random_numbers<T>(given ? count : 0, random);
  const Buffer<T> anchor = random_numbers<T>(anchored ? count : 0, random);
  const Buffer<T> signs(given ? 0 : count, kPageEnd);
  const cpu::SignQuantization task{element,       num_features, feature_data.data(),  codes.data(), signs.data(),
                                   anchor.data(), 0.5,          gradient_data.data(), 0.25,         squared};
  double total = 0;
  std::vector<std::vector<double>> slopes(static_cast<size_t>(num_features));
  std::vector<double> targets;
  for (int64_t i = first; i < last; ++i) {
    double sum = anchored ? 0.5 * value(anchor[i]) : 0;
    for (const auto& feature : features) sum += value(feature[i]);
    targets.push_back(given ? value(codes[i]) : sum >= 0 ? 1 : -1);
    for (size_t f = 0; f < features.size(); ++f) {
      const double difference = value(features[f][i]) - targets.back();
      total += squared ? difference * difference : std::abs(difference);
      slopes[f].push_back(0.25 * (squared ? difference : (difference > 0) - (difference < 0)));
    }
  }

  const std::string outer = context;
  for (const std::string& variant : variants()) {
    setenv("ADSQ_SIMD", variant.c_str(), 1);
    context = outer + ", " + variant;
    const double loss = cpu::sign_quantization_kernel()(task, first, last);
    CHECK(std::abs(loss - total) <= 1e-5 * total);
    for (int64_t i = 0; i < count; ++i) {
      const bool written = first <= i && i < last;
      const auto at = static_cast<size_t>(i - first);
      const auto check = [&](const auto& buffer, const auto& wanted) {
        if (buffer.size() == 0) return;
        if (written) CHECK_EQUAL(value(buffer[i]), wanted[at]);
        if (!written) CHECK(std::memcmp(&buffer[i], std::string(8, '\xA5').data(), sizeof(buffer[i])) == 0);
      };
      check(signs, targets);
      for (size_t f = 0; f < features.size(); ++f) check(gradients[f], slopes[f]);
    }
    const auto wipe = [](const auto& buffer) {
      if (buffer.size() > 0) std::memset(buffer.data(), 0xA5, sizeof(buffer[0]) * static_cast<size_t>(buffer.size()));
    };
    wipe(signs);
    for (const auto& gradient : gradients) wipe(gradient);
  }
  context = outer;
}

}  // namespace

void test_sign_quantization() {
  Random random(8);
  for (const int64_t count :
       {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 47, 63, 64, 65, 127, 1023, 1024, 1025, 2500}) {
    for (const int64_t num_features : {1, 1, 2, 2, 3}) {
      const int64_t first = random.chance(2) ? 0 : random.below(count + 1);
      context = std::to_string(num_features) + " x " + std::to_string(count) + " from " + std::to_string(first);
      compare<float, float>(Element::kFloat32, count, first, num_features, random);
      compare<double, double>(Element::kFloat64, count, first, num_features, random);
      compare<Float16, float>(Element::kFloat16, count, first, num_features, random);
      compare<BFloat16, float>(Element::kBFloat16, count, first, num_features, random);
    }
  }
}

}  // namespace adsq::test
