// codes ELEMENT ROWS BITS BLOCKS THREADS < codes > packed, then the codes unpacked again. Built with sanitizers by
// tests/test_cuda_emulator.py; buffers have their exact size, so that an access out of bounds is caught.
#include "cuda_emulator.h"  // first: it stands in for what nvcc defines

#include <cstdio>
#include <cstdlib>
#include <memory>

#include "cuda/codes.cuh"

int main(int, char** argv) {
  using namespace adsq;
  const auto element = static_cast<Element>(std::atoi(argv[1]));
  const int64_t rows = std::atoll(argv[2]), bits = std::atoll(argv[3]);
  const emulator::Launch launch{static_cast<unsigned>(std::atoi(argv[4])), static_cast<unsigned>(std::atoi(argv[5]))};
  dispatch_element(element, [&](auto type) {
    using T = decltype(type);
    const int64_t count = rows * bits, bytes = rows * ((bits + 7) / 8);
    const std::unique_ptr<T[]> codes(new T[count]), unpacked(new T[count]);
    const std::unique_ptr<uint8_t[]> packed(new uint8_t[bytes]);
    if (std::fread(codes.get(), sizeof(T), count, stdin) != static_cast<size_t>(count)) std::abort();
    for (int64_t i = 0; i < bytes; ++i) packed[i] = 0xA5;  // garbage that the kernel must overwrite
    EMULATE(launch, cuda::pack_codes_kernel(codes.get(), packed.get(), rows, bits));
    EMULATE(launch, cuda::unpack_codes_kernel(packed.get(), unpacked.get(), rows, bits));
    std::fwrite(packed.get(), 1, bytes, stdout);
    std::fwrite(unpacked.get(), sizeof(T), count, stdout);
  });
}
