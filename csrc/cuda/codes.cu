#include <algorithm>

#include "cuda/codes.cuh"
#include "cuda/codes.h"

namespace adsq::cuda {
namespace {

constexpr int kThreads = 256;
// Enough blocks to fill any GPU of today several times over; the grid-stride loop does the rest.
constexpr int64_t kMaxBlocks = 1 << 16;

unsigned blocks_for(int64_t items) {
  return static_cast<unsigned>(std::min((items + kThreads - 1) / kThreads, kMaxBlocks));
}

}  // namespace

int launch_pack_codes(Element element, const void* codes, uint8_t* packed, int64_t rows, int64_t num_bits,
                      void* stream) {
  const unsigned blocks = blocks_for(rows * ((num_bits + 7) / 8));
  dispatch_element(element, [&](auto type) {
    pack_codes_kernel<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
        static_cast<const decltype(type)*>(codes), packed, rows, num_bits);
  });
  return cudaGetLastError();
}

int launch_unpack_codes(Element element, const uint8_t* packed, void* codes, int64_t rows, int64_t num_bits,
                        void* stream) {
  const unsigned blocks = blocks_for(rows * num_bits);
  dispatch_element(element, [&](auto type) {
    unpack_codes_kernel<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
        packed, static_cast<decltype(type)*>(codes), rows, num_bits);
  });
  return cudaGetLastError();
}

}  // namespace adsq::cuda
