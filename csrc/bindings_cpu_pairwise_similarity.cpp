// Registers the CPU kernels of the pair loss and of the similarity of labels.
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "bindings_cpu.h"
#include "cpu/pairwise_similarity.h"

namespace adsq {
namespace {

cpu::Similarity similarity_of(const std::string& name) {
  if (name == "shared") return cpu::Similarity::kShared;
  if (name == "cosine") return cpu::Similarity::kCosine;
  STD_TORCH_CHECK(name == "dot", "similarity: expected shared, cosine or dot");
  return cpu::Similarity::kDot;
}

cpu::LabelInput labels_of(const Tensor& labels, const char* name) {
  STD_TORCH_CHECK(labels.dim() == 1 || labels.dim() == 2, name, ": expected class ids or label rows");
  const bool are_ids = labels.dim() == 1;
  const ScalarType type = labels.scalar_type();
  STD_TORCH_CHECK(!are_ids || type == ScalarType::Long, name, ": expected class ids of dtype int64");
  const Element element = type == ScalarType::Bool ? Element::kUInt8 : element_of(type);
  return {labels.const_data_ptr(), element, are_ids, labels.size(0), are_ids ? 0 : labels.size(1)};
}

void check_labels(const cpu::LabelInput& labels_u, const cpu::LabelInput& labels_v) {
  STD_TORCH_CHECK(labels_u.are_ids == labels_v.are_ids && labels_u.num_classes == labels_v.num_classes,
                  "labels_v: expected labels like labels_u");
}

// Entries side by side; rows may lie anywhere.
Tensor with_dense_rows(const Tensor& matrix) {
  return matrix.size(1) <= 1 || matrix.stride(1) == 1 ? matrix : as_contiguous(matrix);
}

cpu::FeatureRows rows_of(const Tensor& matrix) {
  return {matrix.const_data_ptr(), element_of(matrix.scalar_type()), matrix.size(0), matrix.stride(0)};
}

template <typename T>
std::vector<T> weights_of(const std::optional<Tensor>& weights, int64_t count) {
  if (!weights) return {};
  STD_TORCH_CHECK(weights->dim() == 1 && weights->size(0) == count, "column_weights: expected ", count, " entries");
  const Tensor source = as_contiguous(*weights);
  std::vector<T> values(static_cast<size_t>(count));
  const ScalarType type = source.scalar_type();
  dispatch_element(type == ScalarType::Bool ? Element::kUInt8 : element_of(type), [&](auto element) {
    const auto* from = static_cast<const decltype(element)*>(source.const_data_ptr());
    for (int64_t j = 0; j < count; ++j) values[static_cast<size_t>(j)] = static_cast<T>(to_number(from[j]));
  });
  return values;
}

struct LossArguments {
  Tensor u, v, labels_u, labels_v;
  std::optional<Tensor> column_weights;
  Tensor parameters;
  cpu::Similarity similarity;
  bool squared, exclude_diagonal, mean, needs_u, needs_v, needs_parameters;
};

template <typename T>
std::tuple<Tensor, Tensor, Tensor, Tensor> loss_of(const LossArguments& a) {
  const ScalarType type = sizeof(T) == 8 ? ScalarType::Double : ScalarType::Float;
  STD_TORCH_CHECK(a.parameters.dim() == 1 && a.parameters.size(0) == 4 && a.parameters.scalar_type() == type,
                  "parameters: expected scale, bias and two weights in the dtype of the sums");
  const int64_t n = a.u.size(0), m = a.v.size(0), num_features = a.u.size(1);
  const std::vector<T> weights = weights_of<T>(a.column_weights, m);
  const Tensor values = as_contiguous(a.parameters);
  const auto* parameters = static_cast<const T*>(values.const_data_ptr());
  Tensor loss = empty_on_cpu({}, type);
  Tensor grad_u = a.needs_u ? empty_on_cpu({n, num_features}, type) : empty_on_cpu({0}, type);
  Tensor grad_v = a.needs_v ? empty_on_cpu({m, num_features}, type) : empty_on_cpu({0}, type);
  Tensor grad_parameters = empty_on_cpu({a.needs_parameters ? 4 : 0}, type);

  cpu::PairLossInput<T> input{};
  input.u = rows_of(a.u);
  input.v = rows_of(a.v);
  input.num_features = num_features;
  input.labels_u = labels_of(a.labels_u, "labels_u");
  input.labels_v = labels_of(a.labels_v, "labels_v");
  check_labels(input.labels_u, input.labels_v);
  STD_TORCH_CHECK(input.labels_u.count == n && input.labels_v.count == m, "labels: expected one for each row");
  if (a.column_weights) input.column_weights = weights.data();
  input.scale = parameters[0];
  input.bias = parameters[1];
  input.positive_weight = parameters[2];
  input.negative_weight = parameters[3];
  input.similarity = a.similarity;
  input.squared = a.squared;
  input.exclude_diagonal = a.exclude_diagonal;
  input.mean = a.mean;
  if (a.needs_u) input.grad_u = static_cast<T*>(grad_u.mutable_data_ptr());
  if (a.needs_v) input.grad_v = static_cast<T*>(grad_v.mutable_data_ptr());
  const cpu::PairLossResult result = cpu::pair_loss(input, torch_threads());
  *static_cast<T*>(loss.mutable_data_ptr()) = static_cast<T>(result.loss);
  if (a.needs_parameters) {
    auto* gradient = static_cast<T*>(grad_parameters.mutable_data_ptr());
    gradient[0] = static_cast<T>(result.grad_scale);
    gradient[1] = static_cast<T>(result.grad_bias);
    gradient[2] = gradient[3] = 0;  // the weights are constants
  }
  return {loss, grad_u, grad_v, grad_parameters};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> pairwise_similarity_loss(
    const Tensor& u, const Tensor& v, const Tensor& labels_u, const Tensor& labels_v,
    const std::optional<Tensor>& column_weights, const Tensor& parameters, const std::string& similarity,
    const std::string& form, bool exclude_diagonal, bool mean, bool needs_u, bool needs_v, bool needs_parameters) {
  check_matrix(u, "u");
  check_matrix(v, "v");
  STD_TORCH_CHECK(u.size(1) == v.size(1) && u.scalar_type() == v.scalar_type(), "v: expected rows like those of u");
  STD_TORCH_CHECK(!exclude_diagonal || u.size(0) == v.size(0), "exclude_diagonal: expected as many rows in u as in v");
  STD_TORCH_CHECK(form == "likelihood" || form == "squared", "form: expected likelihood or squared");
  const LossArguments arguments{with_dense_rows(u),
                                with_dense_rows(v),
                                as_contiguous(labels_u),
                                as_contiguous(labels_v),
                                column_weights,
                                parameters,
                                similarity_of(similarity),
                                form == "squared",
                                exclude_diagonal,
                                mean,
                                needs_u,
                                needs_v,
                                needs_parameters};
  switch (u.scalar_type()) {
    case ScalarType::Double: return loss_of<double>(arguments);
    case ScalarType::Float:
    case ScalarType::Half:
    case ScalarType::BFloat16: return loss_of<float>(arguments);
    default: break;
  }
  STD_TORCH_CHECK(false, "u: expected float16, bfloat16, float32 or float64");
}

Tensor pairwise_similarity(const Tensor& labels_u, const Tensor& labels_v, const std::string& kind) {
  const Tensor source_u = as_contiguous(labels_u), source_v = as_contiguous(labels_v);
  const cpu::LabelInput some = labels_of(source_u, "labels_u"), all = labels_of(source_v, "labels_v");
  check_labels(some, all);
  Tensor s = empty_on_cpu({some.count, all.count}, ScalarType::Float);
  cpu::pairwise_similarity(some, all, similarity_of(kind), static_cast<float*>(s.mutable_data_ptr()), torch_threads());
  return s;
}

Tensor mean_pairwise_similarity(const Tensor& labels_u, const Tensor& labels_v,
                                const std::optional<Tensor>& column_weights, const std::string& kind) {
  const Tensor source_u = as_contiguous(labels_u), source_v = as_contiguous(labels_v);
  const cpu::LabelInput some = labels_of(source_u, "labels_u"), all = labels_of(source_v, "labels_v");
  check_labels(some, all);
  const std::vector<float> weights = weights_of<float>(column_weights, all.count);
  Tensor mean = empty_on_cpu({}, ScalarType::Float);
  *static_cast<float*>(mean.mutable_data_ptr()) = static_cast<float>(cpu::mean_pairwise_similarity(
      some, all, column_weights ? weights.data() : nullptr, similarity_of(kind), torch_threads()));
  return mean;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(adsq, CPU, library) {
  library.impl("pairwise_similarity", TORCH_BOX(&pairwise_similarity));
  library.impl("mean_pairwise_similarity", TORCH_BOX(&mean_pairwise_similarity));
  library.impl("pairwise_similarity_loss", TORCH_BOX(&pairwise_similarity_loss));
}

}  // namespace adsq
