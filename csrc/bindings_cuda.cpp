// Registers the CUDA kernels with the ops that kernels/<family>/op.py defines. Each runs on the current stream of the
// device of its input, and never waits for the GPU.
#include "bindings_cuda.h"
#include "cuda/codes.h"

namespace adsq {
namespace {

Tensor pack_codes(const Tensor& codes) {
  check_matrix(codes, "codes");
  const torch::stable::accelerator::DeviceGuard guard(codes.get_device_index());
  const Tensor source = as_contiguous(codes);
  const int64_t rows = source.size(0), num_bits = source.size(1);
  Tensor packed = empty_beside(source, {rows, (num_bits + 7) / 8}, ScalarType::Byte);
  if (rows == 0) return packed;  // a grid of zero blocks is an error
  check_launch(cuda::launch_pack_codes(element_of(source.scalar_type()), source.const_data_ptr(),
                                       static_cast<uint8_t*>(packed.mutable_data_ptr()), rows, num_bits,
                                       current_stream(source)));
  return packed;
}

Tensor unpack_codes(const Tensor& packed, int64_t num_bits, ScalarType dtype) {
  check_packed(packed, num_bits);
  const torch::stable::accelerator::DeviceGuard guard(packed.get_device_index());
  const Tensor source = as_contiguous(packed);
  const int64_t rows = source.size(0);
  Tensor codes = empty_beside(source, {rows, num_bits}, dtype);
  if (rows == 0) return codes;
  check_launch(cuda::launch_unpack_codes(element_of(dtype), static_cast<const uint8_t*>(source.const_data_ptr()),
                                         codes.mutable_data_ptr(), rows, num_bits, current_stream(source)));
  return codes;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(adsq, CUDA, library) {
  library.impl("pack_codes", TORCH_BOX(&pack_codes));
  library.impl("unpack_codes", TORCH_BOX(&unpack_codes));
}

}  // namespace adsq
