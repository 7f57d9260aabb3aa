// A sample of the codes, which tells how far a search has to look before it has begun.
#pragma once
#include <cstdint>
#include <vector>

#include "cpu/hamming_results.h"

namespace adsq::cpu {

class Sample {
 public:
  // Draws it.
  explicit Sample(const Search& search);

  // Whether it has enough codes to tell.
  bool is_enough() const { return rank_ > 0; }

  // Lowers thresholds[query] to a distance within which as many codes as are wanted seem to lie.
  void lower(std::vector<int32_t> queries, int32_t* thresholds) const;

 private:
  void draw(int64_t places, int64_t together);
  void count_first(std::vector<int32_t>& queries, int32_t* thresholds) const;
  Codes codes() const;

  const Search& search_;
  std::vector<uint8_t> rows_;
  int64_t rank_ = 0;  // whose distance in the sample is that
};

}  // namespace adsq::cpu
