#if defined(__x86_64__)
#include "cpu/hamming_scan_avx512.h"

namespace adsq::cpu::avx512bw {

const ScanKernels kScanKernels = kernels_of<Planes, Isa>(7, 8, 14);

}  // namespace adsq::cpu::avx512bw
#endif
