// What both bindings share: element types of tensors, and the checks that keep a wrong call from reading wild memory.
// The schemas live in kernels/<family>/op.py, which also checks shapes for people; these checks guard direct calls.
#pragma once
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

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

}  // namespace adsq
