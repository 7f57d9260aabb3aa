// Two ways to compare codes with a tile of queries, for filter_kernel: by counting bits, and on tensor cores. A thread
// holds kCodes codes and gets the distances to kQueries of the kRows queries that the block compares in a step.
#pragma once
#include "cuda/hamming_codes.cuh"
#include "cuda/mma.cuh"

namespace adsq::cuda {

constexpr int kThreads = 256;
constexpr int kMatrixWords = 8;  // the longest codes that are compared on tensor cores

// Codes in registers, or, where they are wide, read piece by piece; the same queries for all threads.
template <int kWords, bool kWide>
class BitCounts {
 public:
  static constexpr int kCodes = kWords <= 2 ? 8 : 4, kQueries = kWide ? 2 : 1, kRows = kQueries;
  static constexpr int kCodesAThread = kCodes;  // of those that the block holds
  static constexpr bool kTogether = false;      // whether the lanes of a warp must compare together
  static constexpr int kLookAfter = 32;         // queries x chunks after which hits are looked at, about
  static constexpr int kBlocks = kWords == 8 ? 2 : kWords == 2 ? 3 : 4;  // a multiprocessor, which limits registers
  static constexpr int kTile = kWide ? 32 : 128;                         // queries, in 16 KB of shared memory at most

  // Words from one query of the tile to the next
  static __host__ __device__ int stride(int num_words) {
    return kWide ? (num_words + kWords - 1) / kWords * kWords : kWords == 3 ? 4 : kWords;
  }
  static __device__ uint32_t query_word(const Codes& queries, int64_t query, int i) {
    uint32_t word;
    load_words<1>(queries, query, i, &word);
    return word;
  }
  // Which query of the step and which code a thread's numbers stand for
  static __device__ int row_at(int q, int) { return q; }
  static __device__ int64_t index_at(int64_t base, int r, int thread) {
    return base + r / kGroup * kThreads * kGroup + thread * kGroup + r % kGroup;
  }
  static __device__ int first_word(int) { return 0; }  // of the queries' words that the thread reads
  static __device__ int distance(const Codes& a, int64_t i, const Codes& b, int64_t j) {
    return distance_between<kWords, kWide>(a, i, b, j);
  }

  __device__ __forceinline__ void load(const Codes& database, int64_t base) {
    if constexpr (kWide) return;
    if (kGroup > 1 && database.is_dense(4 * kWords) && base + kThreads * kCodes <= database.count) {
#pragma unroll
      for (int r = 0; r < kCodes; r += kGroup) {
        copy_words<kGroup * kWords>(database.data + index_at(base, r, threadIdx.x) * 4 * kWords, codes_ + r * kWords);
      }
    } else {
      const uint8_t* at[kCodes];
#pragma unroll
      for (int r = 0; r < kCodes; ++r) {  // a code twice rather than one beyond the last
        at[r] = database.data + min(index_at(base, r, threadIdx.x), database.count - 1) * database.width;
      }
      read_words<kWords>(at, database.width, database.unit, codes_);
    }
  }

  __device__ __forceinline__ void compare(const Codes& database, int64_t base, const uint32_t* rows, int stride,
                                          int (&distances)[kQueries][kCodes]) {
#pragma unroll
    for (int q = 0; q < kQueries; ++q) {
#pragma unroll
      for (int r = 0; r < kCodes; ++r) distances[q][r] = 0;
    }
    for (int first = 0; first < (kWide ? stride : 1); first += kWords) {
      if constexpr (kWide) {
#pragma unroll
        for (int r = 0; r < kCodes; ++r) {
          const int64_t index = index_at(base, r, threadIdx.x);
          if (index < database.count) load_words<kWords>(database, index, first, codes_ + r * kWords);
        }
      }
#pragma unroll
      for (int q = 0; q < kQueries; ++q) {
        uint32_t query[kWords];
        copy_words<kWords>(rows + q * stride + first, query);
#pragma unroll
        for (int r = 0; r < kCodes; ++r) {
          distances[q][r] = add_distance<kWords>(distances[q][r], codes_ + r * kWords, query);
        }
      }
    }
  }

 private:
  static constexpr int kGroup = kWords <= 2 ? 4 / kWords : 1;  // codes in 16 bytes, which a thread reads at once
  uint32_t codes_[kCodes * kWords] = {};
};

// Products of bit matrices: popcount(a and not b) + popcount(not a and b) is the distance of a and b, so a code brings
// its words and their complements, a query the complements first. A warp holds kTiles tiles of 16 codes, and takes 8
// queries a step: what a step takes besides products is shared by them all. Codes of up to 2, 4 or 8 words.
template <int kWords>
class BitMatrices {
 public:
  static constexpr int kTiles = kWords == 8 ? 4 : 8, kCodes = 2 * kTiles, kQueries = 2, kRows = 8;
  static constexpr int kCodesAThread = kTiles * 16 / 32;  // four lanes hold the same codes
  static constexpr bool kTogether = true;
  static constexpr int kLookAfter = 512;
  static constexpr int kBlocks = kWords == 4 ? 2 : 3, kTile = kWords == 8 ? 128 : 256;

  // With room between queries, so that the lanes of a warp, who read four words of eight, find them in different banks
  static __host__ __device__ int stride(int) { return 2 * kWords + (kWords == 2 ? 0 : 4); }
  // Of each four words (two, if there are no more) the complements first, as they stand opposite the codes'
  static __device__ uint32_t query_word(const Codes& queries, int64_t query, int i) {
    const int at = i / (2 * kPiece) * kPiece + i % kPiece;
    uint32_t word;
    load_words<1>(queries, query, at, &word);
    return i / kPiece % 2 == 0 ? ~word : word;
  }
  static __device__ int row_at(int q, int thread) { return thread % 4 * 2 + q; }
  static __device__ int64_t index_at(int64_t base, int r, int thread) {
    return base + thread / 32 * (16 * kTiles) + r / 2 * 16 + thread % 32 / 4 + r % 2 * 8;
  }
  static __device__ int first_word(int stride) { return threadIdx.x % 32 / 4 * stride + threadIdx.x % 4; }
  static __device__ int distance(const Codes& a, int64_t i, const Codes& b, int64_t j) {
    return distance_between<kWords, false>(a, i, b, j);
  }

  __device__ __forceinline__ void load(const Codes& database, int64_t base) {
#pragma unroll
    for (int p = 0; p < kPieces; ++p) {
      const int word = p * kPiece + threadIdx.x % kPiece;
      const uint8_t* at[kCodes];
#pragma unroll
      for (int r = 0; r < kCodes; ++r) {  // a code twice rather than one beyond the last
        at[r] = database.data + min(index_at(base, r, threadIdx.x), database.count - 1) * database.width + 4 * word;
      }
      read_words<1>(at, database.width - 4 * word, database.unit, codes_[p]);
#pragma unroll
      for (int r = 0; r < kCodes; ++r) {
        if (kWords == 2 && threadIdx.x % 4 >= 2) codes_[p][r] = ~codes_[p][r];
      }
    }
  }

  __device__ __forceinline__ void compare(const Codes&, int64_t, const uint32_t* row, int,
                                          int (&distances)[kQueries][kCodes]) {
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
      int sums[4] = {};  // rows g and g + 8 of the tile, two columns each
#pragma unroll
      for (int p = 0; p < kPieces; ++p) {
        const uint32_t a[] = {codes_[p][2 * m], codes_[p][2 * m + 1]};
        if constexpr (kWords == 2) {
          mma_and_popc_128(sums, a, row[0]);
        } else {
          const uint32_t both[] = {a[0], a[1], ~a[0], ~a[1]}, b[] = {row[8 * p], row[8 * p + 4]};
          mma_and_popc_256(sums, both, b);
        }
      }
#pragma unroll
      for (int q = 0; q < kQueries; ++q) {
        distances[q][2 * m] = sums[q];
        distances[q][2 * m + 1] = sums[2 + q];
      }
    }
  }

 private:
  static constexpr int kPiece = kWords == 2 ? 2 : 4, kPieces = kWords / kPiece;
  uint32_t codes_[kPieces][kCodes];
};

}  // namespace adsq::cuda
