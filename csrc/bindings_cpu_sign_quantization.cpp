// Registers the CPU kernel of sign quantization with the op that kernels/sign_quantization/op.py defines.
#include <optional>
#include <tuple>
#include <vector>

#include "bindings_cpu.h"
#include "cpu/sign_quantization.h"

namespace adsq {
namespace {

// Entries that one thread does at a time. Their losses are added up in this grouping whatever the number of threads.
constexpr int64_t kPartEntries = 32768;

Tensor contiguous_like(const Tensor& tensor, const Tensor& first, const char* name) {
  check_matrix(tensor, name);
  STD_TORCH_CHECK(
      tensor.scalar_type() == first.scalar_type() && tensor.size(0) == first.size(0) && tensor.size(1) == first.size(1),
      name, ": expected the dtype and shape of the first feature");
  return as_contiguous(tensor);
}

std::tuple<Tensor, Tensor, Tensor> sign_quantization_loss(const std::vector<Tensor>& features,
                                                          const std::optional<Tensor>& codes,
                                                          const std::optional<Tensor>& anchor, double anchor_weight,
                                                          int64_t p, bool mean, const std::vector<bool>& needs) {
  STD_TORCH_CHECK(!features.empty(), "features: expected at least one");
  STD_TORCH_CHECK(needs.size() == features.size(), "needs: expected one for each feature");
  STD_TORCH_CHECK(p == 1 || p == 2, "p: expected 1 or 2, got ", p);
  const Tensor& first = features[0];
  const ScalarType type = first.scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Half || type == ScalarType::BFloat16 || type == ScalarType::Float ||
                      type == ScalarType::Double,
                  "features: expected float16, bfloat16, float32 or float64");
  const bool in_double = type == ScalarType::Double;
  const ScalarType real = in_double ? ScalarType::Double : ScalarType::Float;

  std::vector<Tensor> sources;  // owns what the pointers below point to
  std::vector<const void*> data;
  for (const Tensor& feature : features) {
    sources.push_back(contiguous_like(feature, first, "features"));
    data.push_back(sources.back().const_data_ptr());
  }
  const auto pointer = [&](const std::optional<Tensor>& tensor, const char* name) -> const void* {
    if (!tensor) return nullptr;
    sources.push_back(contiguous_like(*tensor, first, name));
    return sources.back().const_data_ptr();
  };

  const int64_t rows = first.size(0), columns = first.size(1), entries = rows * columns;
  int64_t num_needed = 0;
  for (const bool need : needs) num_needed += need;
  Tensor loss = empty_on_cpu({}, real);
  Tensor gradients = empty_on_cpu({num_needed, rows, columns}, real);
  Tensor signs = codes ? empty_on_cpu({0}, type) : empty_on_cpu({rows, columns}, type);
  auto* gradient = static_cast<char*>(gradients.mutable_data_ptr());
  std::vector<void*> slopes;
  for (const bool need : needs) {
    slopes.push_back(need ? gradient : nullptr);
    if (need) gradient += entries * (in_double ? 8 : 4);
  }

  const double unit =
      mean ? 1.0 / static_cast<double>(std::max<int64_t>(1, entries * static_cast<int64_t>(features.size()))) : 1.0;
  const cpu::SignQuantization task{element_of(type),
                                   static_cast<int64_t>(features.size()),
                                   data.data(),
                                   pointer(codes, "codes"),
                                   signs.mutable_data_ptr(),
                                   codes ? nullptr : pointer(anchor, "anchor"),
                                   anchor_weight,
                                   slopes.data(),
                                   static_cast<double>(p) * unit,
                                   p == 2};
  const cpu::SignQuantizationKernel kernel = cpu::sign_quantization_kernel();
  std::vector<double> sums(static_cast<size_t>((entries + kPartEntries - 1) / kPartEntries));
  torch::stable::parallel_for(0, static_cast<int64_t>(sums.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      sums[static_cast<size_t>(part)] = kernel(task, part * kPartEntries, std::min(entries, (part + 1) * kPartEntries));
    }
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  if (in_double) {
    *static_cast<double*>(loss.mutable_data_ptr()) = total * unit;
  } else {
    *static_cast<float*>(loss.mutable_data_ptr()) = static_cast<float>(total * unit);
  }
  return {loss, signs, gradients};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(adsq, CPU, library) {
  library.impl("sign_quantization_loss", TORCH_BOX(&sign_quantization_loss));
}

}  // namespace adsq
