// Compares the kernels with their definition on one data set.
#pragma once
#include "dataset.h"

namespace adsq::test {

void compare_search(const DataSet& data, const Ranking& ranking, const std::vector<int64_t>& thread_counts,
                    Random& random);
void compare_evaluation(const DataSet& data, const Ranking& ranking, const std::vector<int64_t>& thread_counts,
                        Random& random);

void test_misleading_sample();
void test_range_that_fails();
void test_pack_codes();
void test_pairwise();
void test_pairwise_threads();
void test_sign_quantization();
void test_variant_names();

}  // namespace adsq::test
