// Launchers of the code packing kernels; `stream` is a cudaStream_t. They return a cudaError_t as int (0: success).
#pragma once
#include <cstdint>

#include "element.h"

namespace adsq::cuda {

int launch_pack_codes(Element element, const void* codes, uint8_t* packed, int64_t rows, int64_t num_bits,
                      void* stream);
int launch_unpack_codes(Element element, const uint8_t* packed, void* codes, int64_t rows, int64_t num_bits,
                        void* stream);

}  // namespace adsq::cuda
