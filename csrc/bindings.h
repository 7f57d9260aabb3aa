// What both bindings share: element types of tensors, and the checks that keep a wrong call from reading wild memory.
// The schemas live in kernels/<family>/op.py, which also checks shapes for people; these checks guard direct calls. All
// bindings take only what the headers of torch 2.10 have: people build against the torch that is there.
#pragma once
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "element.h"

namespace adsq {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline Element element_of(ScalarType type) {
  switch (type) {
    case ScalarType::Byte: return Element::kUInt8;
    case ScalarType::Char: return Element::kInt8;
    case ScalarType::Short: return Element::kInt16;
    case ScalarType::Int: return Element::kInt32;
    case ScalarType::Long: return Element::kInt64;
    case ScalarType::Half: return Element::kFloat16;
    case ScalarType::BFloat16: return Element::kBFloat16;
    case ScalarType::Float: return Element::kFloat32;
    case ScalarType::Double: return Element::kFloat64;
    default: break;
  }
  STD_TORCH_CHECK(false, "codes: element type not supported by the native kernel");
}

inline void check_matrix(const Tensor& matrix, const char* name) {
  STD_TORCH_CHECK(matrix.dim() == 2, name, ": expected a matrix, got ", matrix.dim(), " dimensions");
}

inline void check_packed(const Tensor& packed, int64_t num_bits) {
  check_matrix(packed, "packed");
  STD_TORCH_CHECK(packed.scalar_type() == ScalarType::Byte, "packed: expected uint8");
  STD_TORCH_CHECK(packed.size(1) == (num_bits + 7) / 8, "packed: expected ", (num_bits + 7) / 8,
                  " bytes a row for num_bits = ", num_bits, ", got ", packed.size(1));
}

// Codes [*, width] against codes [*, width].
inline void check_pair(const Tensor& queries, const Tensor& database) {
  check_matrix(queries, "queries");
  check_matrix(database, "database");
  STD_TORCH_CHECK(queries.scalar_type() == ScalarType::Byte && database.scalar_type() == ScalarType::Byte,
                  "queries, database: expected uint8");
  STD_TORCH_CHECK(queries.size(1) == database.size(1), "database: expected ", queries.size(1),
                  " bytes a code as in queries, got ", database.size(1));
  STD_TORCH_CHECK(1 <= queries.size(1) && queries.size(1) <= 512, "queries: expected 1 to 512 bytes a code, got ",
                  queries.size(1));
}

// Where a search for k neighbours of each query leaves them: tensors of the caller, or new ones.
inline void check_found(const Tensor& queries, const Tensor& distances, const Tensor& indices) {
  check_matrix(distances, "distances");
  STD_TORCH_CHECK(distances.size(0) == queries.size(0) && distances.size(1) >= 1, "distances: expected [",
                  queries.size(0), ", k] with k at least 1");
  STD_TORCH_CHECK(indices.dim() == 2 && indices.size(0) == distances.size(0) && indices.size(1) == distances.size(1),
                  "indices: expected the shape of distances");
  STD_TORCH_CHECK(distances.scalar_type() == ScalarType::Int && indices.scalar_type() == ScalarType::Long,
                  "distances, indices: expected int32 and int64");
  STD_TORCH_CHECK(distances.is_contiguous() && indices.is_contiguous(), "distances, indices: expected contiguous ones");
  STD_TORCH_CHECK(distances.device() == queries.device() && indices.device() == queries.device(),
                  "distances, indices: expected the device of queries");
}

inline Tensor as_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

inline std::optional<Tensor> contiguous(const std::optional<Tensor>& tensor) {
  if (!tensor) return std::nullopt;
  return as_contiguous(*tensor);
}

// As torch::stable::new_empty, which looks its op up by name each time: three of them take as long as a small batch.
inline Tensor empty(const std::vector<int64_t>& sizes, ScalarType type, int32_t device_type, int32_t device_index) {
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t d = sizes.size(); d-- > 1;) strides[d - 1] = strides[d] * std::max<int64_t>(1, sizes[d]);
  AtenTensorHandle tensor;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(sizes.size()), sizes.data(), strides.data(),
                                                  torch::stable::detail::to<int32_t>(torch::stable::detail::from(type)),
                                                  device_type, device_index, &tensor));
  return Tensor(tensor);
}

inline void check_vector(const Tensor& vector, const char* name, ScalarType type, int64_t size) {
  STD_TORCH_CHECK(vector.dim() == 1 && vector.size(0) == size && vector.scalar_type() == type, name, ": expected ",
                  size, " entries of the right dtype");
}

}  // namespace adsq
