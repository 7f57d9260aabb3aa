// The kernels under the pair loss and the similarity of labels. They exist once for each instruction set
// (pairwise_similarity_<simd>.cpp), for float and double; all else is common (pairwise_similarity.cpp).
//
// Of the two sets of items, one lies along the lanes of vectors, the other is streamed. A tile is a piece of the
// matrix of all pairs: [streamed items][lanes].
#pragma once
#include <cstdint>

#include "cpu/simd.h"
#include "element.h"

namespace adsq::cpu {

enum class PairOperation { kLikelihood, kSquared, kSimilarity, kSum };

// How two items are compared: ids and label rows of zeros and ones are 32-bit words, other rows are real numbers.
enum class PairLabels {
  kIds,         // S = 1 where all words are equal
  kBits,        // S = 1 where a bit is set in both
  kCosineBits,  // S = (bits set in both) * norm * norm
  kRows,        // S was computed before, by a matrix product
};

// One tile for `pairs`. T is float or double.
template <typename T>
struct PairTile {
  T* values;       // [num_streamed][stride]: products a.b become slopes; kSimilarity writes S
  int64_t stride;  // lanes, a multiple of the vector's
  int64_t num_streamed;

  const uint32_t* lane_words;  // word w of lane i at [w * lane_words_stride + i]
  int64_t lane_words_stride;
  const uint32_t* streamed_words;  // likewise
  int64_t streamed_words_stride;
  int64_t num_words;
  const T* lane_norms;  // kCosineBits
  const T* streamed_norms;
  const T* similarity;  // kRows: [num_streamed][stride]

  const T* lane_weights;      // 0 where there is no item
  const T* positive_weights;  // of each streamed item, for S = 1
  const T* negative_weights;  // for S = 0
  T scale, bias;
  int64_t diagonal;  // the pair of streamed item j and lane j + diagonal is left out; kNoDiagonal: none is

  double loss = 0;  // results are added; kSum: the sum of weighted similarities
  double slope_sum = 0;
  double slope_product_sum = 0;
};

constexpr int64_t kNoDiagonal = INT64_MIN / 2;

template <typename T>
struct PairKernels {
  int lanes;     // of a vector
  int row_step;  // rows of a matrix product come in multiples of this

  // c[i][:] (+)= sum_k a(i, k) b(k)[:] with a(i, k) = a[i * a_row + k * a_step], and vector v of b(k) at
  // b[v * b_vector + k * b_step].
  void (*multiply)(const T* a, int64_t a_row, int64_t a_step, const T* b, int64_t b_vector, int64_t b_step,
                   int64_t steps, T* c, int64_t c_row, int64_t rows, int64_t vectors, bool add);

  // Rows of half, single or double numbers as T, with zeros up to `to_stride`.
  void (*convert)(Element element, const void* from, int64_t from_stride, int64_t rows, int64_t columns, T* to,
                  int64_t to_stride);

  // From products to slopes and the loss, [operation][labels].
  void (*pairs[4][4])(PairTile<T>& tile);
};

// The kernels of `active_simd()`.
template <typename T>
const PairKernels<T>& pair_kernels();

// One of these for each variant that the build has.
namespace generic {
extern const PairKernels<float> kPairKernels32;
extern const PairKernels<double> kPairKernels64;
}  // namespace generic
namespace avx2 {
extern const PairKernels<float> kPairKernels32;
extern const PairKernels<double> kPairKernels64;
}  // namespace avx2
namespace avx512bw {
extern const PairKernels<float> kPairKernels32;
extern const PairKernels<double> kPairKernels64;
}  // namespace avx512bw
namespace avx512 {
extern const PairKernels<float> kPairKernels32;
extern const PairKernels<double> kPairKernels64;
}  // namespace avx512

}  // namespace adsq::cpu
