// ranking neighbours NAME=VALUE ... < inputs > outputs: the host code of hamming_rank_launch.cuh and its kernels.
// Inputs and outputs are arrays, one after the other, as below; all have their exact size, and outputs hold garbage
// before.
#include "launcher.h"  // first: it stands in for what nvcc defines

#include "arrays.h"
#include "cuda/hamming_range.cuh"
#include "cuda/hamming_ranking.cuh"

namespace {

using namespace adsq::cuda;

// Nothing -> rows of the table, rows of queries in a batch, splits at most, columns
void print_sizes(const Codes& queries, const Codes& database, int tables) {
  Ranking ranking = make_ranking(queries, database);
  choose_table(ranking, tables);
  const int64_t found[] = {ranking.table_rows, ranking.batch_rows, ranking.max_splits, ranking.num_columns()};
  std::fwrite(found, sizeof(found), 1, stdout);
}

// queries, database, mask, list, ids -> distances, indices
void neighbours(emulator::Launcher& launcher, const Codes& queries, const Codes& database, const RankSizes& sizes) {
  const int64_t n = database.count, k = option("k");
  Array<uint8_t> mask(n * option("mask"));  // any byte but 0 is true
  Array<int> list(option("listed"));
  Array<int64_t> ids(n * option("ids")), indices(queries.count * k);
  Array<int32_t> distances(queries.count * k);
  Ranking ranking = make_ranking(queries, database);
  if (option("mask")) ranking.database.mask = mask.read().data();
  auto size = static_cast<unsigned>(list.count);
  if (options_read.count("listed")) ranking.list = list.read().data(), ranking.list_size = &size;
  choose_table(ranking, 1, sizes);
  set_table(ranking, allocate(8 * table_words(ranking)));
  rank_neighbours(launcher, ranking,
                  {nullptr, k, option("ids") ? ids.read().data() : nullptr, distances.data(), indices.data()});
  distances.write();
  indices.write();
}

// queries, database, ids -> offsets, distances, indices
void range(emulator::Launcher& launcher, const PackedCodes& queries, const PackedCodes& database,
           const RankSizes& sizes) {
  Array<int64_t> ids(database.count * option("ids")), offsets(queries.count + 1), indices(0);
  Array<int32_t> distances(0);
  const auto make = [&](int64_t total) -> RangeResults {
    distances = Array<int32_t>(total);
    indices = Array<int64_t>(total);
    return {distances.data(), indices.data()};
  };
  hamming_range(launcher, queries, database, option("radius"), option("ids") ? ids.read().data() : nullptr,
                offsets.data(), make, allocate, sizes);
  offsets.write();
  distances.write();
  indices.write();
}

// queries, database, labels of both -> total, relevant; or average precision, number of relevant codes
void ranking(emulator::Launcher& launcher, const PackedCodes& queries, const PackedCodes& database,
             const RankSizes& sizes, bool histogram) {
  const int64_t classes = option("classes", 1);
  std::unique_ptr<Array<uint8_t>> labels[2];
  const auto read_labels = [&](int side, int64_t count) -> LabelRows {
    const auto element = static_cast<adsq::Element>(option(side == 0 ? "query_element" : "element"));
    labels[side] = std::make_unique<Array<uint8_t>>(count * classes * adsq::size_of(element));
    return {labels[side]->read().data(), element, count, classes, option("label_ids") != 0};
  };
  const LabelRows wanted = read_labels(0, queries.count), given = read_labels(1, database.count);
  if (histogram) {
    const int64_t bits = option("bits");
    Array<int64_t> total(queries.count * (bits + 1)), relevant(total.count);
    hamming_relevance_histogram(launcher, queries, database, wanted, given, bits, total.data(), relevant.data(),
                                allocate, sizes);
    total.write();
    relevant.write();
  } else {
    Array<double> average_precision(queries.count);
    Array<int64_t> num_relevant(queries.count);
    hamming_average_precision(launcher, queries, database, wanted, given, option("k"), option("expected") != 0,
                              average_precision.data(), num_relevant.data(), allocate, sizes);
    average_precision.write();
    num_relevant.write();
  }
}

}  // namespace

int main(int count, char** arguments) {
  read_options(arguments + 2, count - 2);
  const int64_t q = option("queries"), n = option("codes"), width = option("width");
  const std::string task = arguments[1];
  if (task == "sizes") {
    print_sizes({nullptr, q, static_cast<int>(width)}, {nullptr, n, static_cast<int>(width)},
                static_cast<int>(option("tables")));
    return 0;
  }
  Array<uint8_t> queries(q * width, option("query_shift")), database(n * width, option("shift"));
  queries.read();
  database.read();
  const PackedCodes some{queries.data(), q, width}, all{database.data(), n, width};
  RankSizes sizes;
  sizes.table_bytes = option("table_bytes", sizes.table_bytes);
  sizes.table_rows = option("table_rows", sizes.table_rows);
  sizes.codes_a_split = option("codes_a_split", sizes.codes_a_split);
  sizes.near_codes = option("near_codes", sizes.near_codes);
  emulator::Launcher launcher{option("blocks", 3), static_cast<int>(option("threads", 1024))};
  if (task == "neighbours") {
    neighbours(launcher, codes_at(some.data, q, width), codes_at(all.data, n, width), sizes);
  } else if (task == "range") {
    range(launcher, some, all, sizes);
  } else {
    ranking(launcher, some, all, sizes, task == "histogram");
  }
  return 0;
}
