// The pair loss and the similarity of labels: every variant, element type and kind of label against loops in double, at
// the ends of pages, with several threads.
#include "cpu/pairwise_similarity.h"

#include <cmath>
#include <cstdlib>

#include "search.h"

namespace adsq::test {
namespace {

enum class LabelKind { kIds, kWideIds, kBits, kHalfBits, kReal };
constexpr int kNumLabelKinds = 5;

struct Labels {
  cpu::LabelInput input{};
  Buffer<int64_t> ids;
  Buffer<uint8_t> bits;
  Buffer<Float16> halves;
  Buffer<double> reals;

  double at(int64_t i, int64_t c) const {
    const int64_t place = i * input.num_classes + c;
    return bits.size() > 0 ? bits[place] : halves.size() > 0 ? value(halves[place]) : reals[place];
  }
};

Labels make_labels(LabelKind kind, int64_t count, int64_t num_classes, Random& random) {
  Labels labels;
  const int64_t size = count * num_classes;
  switch (kind) {
    case LabelKind::kIds:
    case LabelKind::kWideIds:
      labels.ids = Buffer<int64_t>(count, kPageEnd);
      for (int64_t i = 0; i < count; ++i) {
        labels.ids[i] = random.below(3) - (kind == LabelKind::kWideIds ? random.below(2) << 32 : 0);
      }
      labels.input = {labels.ids.data(), Element::kInt64, true, count, 0};
      break;
    case LabelKind::kBits:
      labels.bits = Buffer<uint8_t>(size, kPageEnd);
      for (int64_t i = 0; i < size; ++i) labels.bits[i] = random.chance(4);
      labels.input = {labels.bits.data(), Element::kUInt8, false, count, num_classes};
      break;
    case LabelKind::kHalfBits:
      labels.halves = Buffer<Float16>(size, kPageEnd);
      for (int64_t i = 0; i < size; ++i) labels.halves[i].bits = random.chance(4) ? Float16::kOne : 0;
      labels.input = {labels.halves.data(), Element::kFloat16, false, count, num_classes};
      break;
    case LabelKind::kReal:
      labels.reals = Buffer<double>(size, kPageEnd);
      for (int64_t i = 0; i < size; ++i) labels.reals[i] = static_cast<double>(random.below(65) - 20) / 64;
      labels.input = {labels.reals.data(), Element::kFloat64, false, count, num_classes};
      break;
  }
  return labels;
}

double similarity_of(const Labels& u, int64_t i, const Labels& v, int64_t j, cpu::Similarity similarity) {
  if (u.input.are_ids) return u.ids[i] == v.ids[j];
  double product = 0, square_u = 0, square_v = 0;
  for (int64_t c = 0; c < u.input.num_classes; ++c) {
    product += u.at(i, c) * v.at(j, c);
    square_u += u.at(i, c) * u.at(i, c);
    square_v += v.at(j, c) * v.at(j, c);
  }
  if (similarity == cpu::Similarity::kShared) return product > 0;
  if (similarity == cpu::Similarity::kDot) return std::min(1.0, std::max(0.0, product));
  return square_u > 0 && square_v > 0 ? product / std::sqrt(square_u * square_v) : 0;
}

// Numbers in rows with gaps, at the end of a page.
template <typename T>
struct Features {
  Buffer<T> memory;
  cpu::FeatureRows rows;

  Features(Element element, int64_t count, int64_t width, Random& random)
      : memory(count > 0 ? count * width + (count - 1) * (width % 3) : 0, kPageEnd),
        rows{memory.data(), element, count, width + width % 3} {
    for (int64_t i = 0; i < memory.size(); ++i) {
      const int64_t sixteenths = random.below(33) - 16;
      if constexpr (std::is_arithmetic_v<T>) {
        memory[i] = static_cast<T>(sixteenths) / 16;
      } else {
        const int fraction_bits = std::is_same_v<T, Float16> ? 10 : 7;
        const int eighth = static_cast<int>(random.below(8)) << (fraction_bits - 3);
        memory[i].bits = static_cast<uint16_t>((sixteenths < 0 ? 0x8000 : 0) |
                                               (sixteenths == 0 ? 0 : T::kOne - (1 << fraction_bits) + eighth));
      }
    }
  }
  double at(int64_t i, int64_t k) const { return value(memory[i * rows.stride + k]); }
};

struct Expected {
  double loss = 0, grad_scale = 0, grad_bias = 0;
  std::vector<double> grad_u, grad_v;
};

template <typename T>
void check_near(const char* what, double actual, double expected, double size) {
  ++num_checks;
  const double tolerance = (sizeof(T) == 8 ? 1e-11 : 1e-4) * (size + 1e-3);
  if (std::abs(actual - expected) <= tolerance) return;
  context += std::string(", ") + what;
  CHECK_EQUAL(actual, expected);
}

template <typename T>
void check_all_near(const char* what, const Buffer<T>& actual, const std::vector<double>& expected) {
  double size = 0;
  for (const double x : expected) size = std::max(size, std::abs(x));
  for (int64_t i = 0; i < actual.size(); ++i) {
    check_near<T>(what, static_cast<double>(actual[i]), expected[static_cast<size_t>(i)], size);
  }
}

template <typename T, typename In>
Expected expected_loss(const cpu::PairLossInput<T>& input, const Features<In>& u, const Features<In>& v,
                       const Labels& labels_u, const Labels& labels_v) {
  Expected result;
  const int64_t n = input.u.count, m = input.v.count, width = input.num_features;
  result.grad_u.resize(static_cast<size_t>(n * width));
  result.grad_v.resize(static_cast<size_t>(m * width));
  double count = 0;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < m; ++j) {
      const double c = input.column_weights != nullptr ? static_cast<double>(input.column_weights[j]) : 1;
      if (i > 0 || !input.exclude_diagonal) count += c;
      if (input.exclude_diagonal && i == j) continue;
      double product = 0;
      for (int64_t k = 0; k < width; ++k) product += u.at(i, k) * v.at(j, k);
      const double s = similarity_of(labels_u, i, labels_v, j, input.similarity);
      const double x = static_cast<double>(input.scale) * product + static_cast<double>(input.bias);
      const double positive = static_cast<double>(input.positive_weight),
                   negative = static_cast<double>(input.negative_weight);
      const double weight = c * (positive * s + negative * (1 - s)), difference = x - (2 * s - 1);
      const double sigmoid = 1 / (1 + std::exp(-x)), softplus = std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x)));
      result.loss += weight * (input.squared ? difference * difference : softplus - s * x);
      const double slope = weight * (input.squared ? 2 * difference : sigmoid - s);
      result.grad_bias += slope;
      result.grad_scale += slope * product;
      for (int64_t k = 0; k < width; ++k) {
        result.grad_u[static_cast<size_t>(i * width + k)] += static_cast<double>(input.scale) * slope * v.at(j, k);
        result.grad_v[static_cast<size_t>(j * width + k)] += static_cast<double>(input.scale) * slope * u.at(i, k);
      }
    }
  }
  const double unit = input.mean && count > 0 ? 1 / count : 1;
  result.loss *= unit;
  result.grad_scale *= unit;
  result.grad_bias *= unit;
  for (double& x : result.grad_u) x *= unit;
  for (double& x : result.grad_v) x *= unit;
  return result;
}

template <typename T, typename In>
void compare(Element element, int64_t n, int64_t m, int64_t width, int64_t num_classes, Random& random) {
  const auto kind = static_cast<LabelKind>(random.below(kNumLabelKinds));
  context = std::to_string(n) + " x " + std::to_string(m) + " of " + std::to_string(width) + ", labels " +
            std::to_string(static_cast<int>(kind)) + " of " + std::to_string(num_classes);
  const Features<In> u(element, n, width, random), v(element, m, width, random);
  const Labels labels_u = make_labels(kind, n, num_classes, random),
               labels_v = make_labels(kind, m, num_classes, random);
  std::vector<T> weights(static_cast<size_t>(m));
  for (T& weight : weights) weight = static_cast<T>(random.below(4));
  cpu::PairLossInput<T> input{};
  input.u = u.rows;
  input.v = v.rows;
  input.num_features = width;
  input.labels_u = labels_u.input;
  input.labels_v = labels_v.input;
  input.column_weights = random.chance(2) ? weights.data() : nullptr;
  input.scale = static_cast<T>(0.5);
  input.bias = static_cast<T>(-0.25);
  input.positive_weight = 3;
  input.negative_weight = static_cast<T>(0.5);
  input.similarity = static_cast<cpu::Similarity>(random.below(3));
  input.squared = random.chance(2);
  input.exclude_diagonal = n == m && random.chance(2);
  input.mean = random.chance(2);
  const Expected expected = expected_loss(input, u, v, labels_u, labels_v);
  const bool wants_u = !random.chance(4), wants_v = !random.chance(4);
  std::vector<double> similarities;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < m; ++j) similarities.push_back(similarity_of(labels_u, i, labels_v, j, input.similarity));
  }
  for_every_way({1, 3}, [&](RealThreads& real) {
    const Buffer<T> grad_u(wants_u ? n * width : 0, kPageEnd), grad_v(wants_v ? m * width : 0, kPageEnd);
    input.grad_u = grad_u.data();
    input.grad_v = grad_v.data();
    const cpu::PairLossResult result = cpu::pair_loss(input, real.threads);
    check_near<T>("loss", result.loss, expected.loss, std::abs(expected.loss));
    check_near<T>("gradient of the scale", result.grad_scale, expected.grad_scale, std::abs(expected.loss));
    check_near<T>("gradient of the bias", result.grad_bias, expected.grad_bias, std::abs(expected.loss));
    check_all_near("gradient of u", grad_u, expected.grad_u);
    check_all_near("gradient of v", grad_v, expected.grad_v);
    const Buffer<float> s(n * m, kPageEnd);
    cpu::pairwise_similarity(labels_u.input, labels_v.input, input.similarity, s.data(), real.threads);
    check_all_near("similarity", s, similarities);
    double sum = 0;
    for (const double x : similarities) sum += x;
    const double mean =
        cpu::mean_pairwise_similarity(labels_u.input, labels_v.input, nullptr, input.similarity, real.threads);
    check_near<float>("mean similarity", mean, n * m > 0 ? sum / static_cast<double>(n * m) : 0, 1);
  });
}

}  // namespace

void test_pairwise() {
  Random random(9);
  const std::vector<int64_t> counts{0, 1, 2, 7, 8, 15, 16, 17, 33, 63, 64, 65, 130},
      widths{0, 1, 3, 8, 16, 17, 48, 50, 96};
  for (int round = 0; round < 40; ++round) {
    const int64_t n = random.pick(counts), m = random.chance(3) ? n : random.pick(counts);
    const int64_t width = random.pick(widths), num_classes = random.pick<int64_t>({1, 5, 32, 33, 70});
    compare<float, float>(Element::kFloat32, n, m, width, num_classes, random);
    compare<double, double>(Element::kFloat64, n, m, width, num_classes, random);
    compare<float, Float16>(Element::kFloat16, m, n, width, num_classes, random);
    compare<float, BFloat16>(Element::kBFloat16, n, m, width, num_classes, random);
  }
}

// Enough pairs for several parts and rounds of them.
void test_pairwise_threads() {
  Random random(10);
  compare<float, float>(Element::kFloat32, 300, 3000, 5, 7, random);
  compare<float, float>(Element::kFloat32, 3000, 300, 16, 7, random);
  compare<double, double>(Element::kFloat64, 4100, 200, 2, 7, random);
}

}  // namespace adsq::test
