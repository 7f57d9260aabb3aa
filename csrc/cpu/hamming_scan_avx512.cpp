#if defined(__x86_64__)
#include "cpu/hamming_scan_avx512.h"

namespace adsq::cpu::avx512 {

const ScanKernels kScanKernels = kernels_of<Planes, Isa>(6, 12, 20);

}  // namespace adsq::cpu::avx512
#endif
