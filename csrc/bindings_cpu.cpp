// Registers the CPU kernels with the ops that kernels/<family>/op.py defines.
#include "bindings.h"
#include "cpu/codes.h"

namespace adsq {
namespace {

// About 32k elements a task: below that a second thread costs more than it brings.
int64_t rows_per_task(int64_t num_bits) { return std::max<int64_t>(1, 32768 / num_bits); }

Tensor pack_codes(const Tensor& codes) {
  check_matrix(codes, "codes");
  const Tensor source = torch::stable::contiguous(codes);
  const int64_t rows = source.size(0), num_bits = source.size(1);
  Tensor packed = torch::stable::new_empty(source, {rows, (num_bits + 7) / 8}, ScalarType::Byte);
  const Element element = element_of(source.scalar_type());
  const void* from = source.const_data_ptr();
  auto* to = static_cast<uint8_t*>(packed.mutable_data_ptr());
  torch::stable::parallel_for(0, rows, rows_per_task(num_bits), [&](int64_t first, int64_t last) {
    cpu::pack_codes(element, from, to, first, last, num_bits);
  });
  return packed;
}

Tensor unpack_codes(const Tensor& packed, int64_t num_bits, ScalarType dtype) {
  check_packed(packed, num_bits);
  const Tensor source = torch::stable::contiguous(packed);
  const int64_t rows = source.size(0);
  Tensor codes = torch::stable::new_empty(source, {rows, num_bits}, dtype);
  const Element element = element_of(dtype);
  const auto* from = static_cast<const uint8_t*>(source.const_data_ptr());
  void* to = codes.mutable_data_ptr();
  torch::stable::parallel_for(0, rows, rows_per_task(num_bits), [&](int64_t first, int64_t last) {
    cpu::unpack_codes(element, from, to, first, last, num_bits);
  });
  return codes;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(adsq, CPU, library) {
  library.impl("pack_codes", TORCH_BOX(&pack_codes));
  library.impl("unpack_codes", TORCH_BOX(&unpack_codes));
}

}  // namespace adsq
