// Labels as the pair kernels read them.
#pragma once
#include <cstdint>
#include <vector>

#include "cpu/pairwise_similarity_kernels.h"
#include "cpu/threads.h"

namespace adsq::cpu {

enum class Similarity { kShared, kCosine, kDot };

// Class ids int64 [count] (num_classes is 0), or label rows [count, num_classes], without gaps.
struct LabelInput {
  const void* data;
  Element element;
  bool are_ids;
  int64_t count;
  int64_t num_classes;
};

// The labels of u and of v as words where they are ids or rows of zeros and ones; else they stay as they are.
template <typename T>
class LabelPair {
 public:
  struct Words {
    int64_t stride = 0;           // items, and room for a vector more
    std::vector<uint32_t> words;  // word w of item i at [w * stride + i]
    std::vector<T> norms;         // kCosineBits
  };

  LabelPair(const LabelInput& labels_u, const LabelInput& labels_v, Similarity similarity, const Threads& threads);

  PairLabels kind() const { return kind_; }
  int64_t num_words() const { return num_words_; }
  const Words& words(bool of_v) const { return words_[of_v]; }

  // kRows: rows first..first+count-1 of one side as numbers, of length 1 where S is the cosine.
  void read_rows(bool of_v, int64_t first, int64_t count, T* to) const;
  // kRows: from products of such rows to S.
  void to_similarity(T* products, int64_t count) const;

 private:
  void pack_ids(const Threads& threads);
  bool pack_bits(const Threads& threads);

  const LabelInput inputs_[2];
  const Similarity similarity_;
  PairLabels kind_ = PairLabels::kRows;
  int64_t num_words_ = 0;
  Words words_[2];
};

extern template class LabelPair<float>;
extern template class LabelPair<double>;

}  // namespace adsq::cpu
