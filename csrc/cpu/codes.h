// Packing of codes on the CPU, on raw pointers. Rows first..last-1 of contiguous matrices.
#pragma once
#include <cstdint>

#include "element.h"

namespace adsq::cpu {

// codes [*, num_bits] of `element` -> packed [*, ceil(num_bits / 8)], pad bits zero.
void pack_codes(Element element, const void* codes, uint8_t* packed, int64_t first, int64_t last, int64_t num_bits);

// packed [*, ceil(num_bits / 8)] -> codes [*, num_bits] of `element`, +1 or -1.
void unpack_codes(Element element, const uint8_t* packed, void* codes, int64_t first, int64_t last, int64_t num_bits);

}  // namespace adsq::cpu
