// ranking neighbours NAME=VALUE ... < inputs > outputs: the host code of hamming_rank_launch.cuh and its kernels.
// Inputs and outputs are arrays, one after the other, as below; all have their exact size, and outputs hold garbage
// before.
#include "launcher.h"  // first: it stands in for what nvcc defines

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>

#include "cuda/hamming_rank_launch.cuh"

namespace {

using namespace adsq::cuda;

std::map<std::string, int64_t> options;

int64_t option(const char* name, int64_t otherwise = 0) {
  const auto found = options.find(name);
  return found == options.end() ? otherwise : found->second;
}

template <typename T>
struct Array {
  int64_t count, shift;
  std::unique_ptr<uint8_t[]> bytes;

  // `shift`: bytes before the first element
  explicit Array(int64_t count, int64_t shift = 0)
      : count(count), shift(shift), bytes(new uint8_t[static_cast<size_t>(shift + size())]) {
    std::memset(bytes.get(), 0xA5, static_cast<size_t>(shift + size()));
  }
  int64_t size() const { return count * static_cast<int64_t>(sizeof(T)); }
  T* data() { return reinterpret_cast<T*>(bytes.get() + shift); }
  Array& read() {
    if (std::fread(data(), 1, static_cast<size_t>(size()), stdin) != static_cast<size_t>(size())) std::abort();
    return *this;
  }
  void write() { std::fwrite(data(), 1, static_cast<size_t>(size()), stdout); }
};

// Sizes that the tests set in the place of those made for a GPU
void shrink(Ranking& ranking) {
  ranking.max_splits = static_cast<int>(option("splits", ranking.max_splits));
  ranking.table_rows = option("table_rows", ranking.table_rows);
  ranking.batch_rows = option("batch_rows", ranking.table_rows);
}

// queries, database, mask, list, ids -> distances, indices
void neighbours(emulator::Launcher& launcher, Ranking ranking) {
  const int64_t q = ranking.queries.count, n = ranking.database.count, k = option("k");
  Array<bool> mask(n * option("mask"));
  Array<int> list(option("listed"));
  Array<int64_t> ids(n * option("ids")), indices(q * k);
  Array<int32_t> distances(q * k);
  if (option("mask")) ranking.database.mask = mask.read().data();
  auto size = static_cast<unsigned>(list.count);
  if (options.count("listed")) ranking.list = list.read().data(), ranking.list_size = &size;
  choose_table(ranking);
  shrink(ranking);
  Array<int64_t> memory(table_words(ranking));
  set_table(ranking, memory.data());
  rank_neighbours(launcher, ranking,
                  {nullptr, k, option("ids") ? ids.read().data() : nullptr, distances.data(), indices.data()});
  distances.write();
  indices.write();
}

}  // namespace

int main(int count, char** arguments) {
  for (int i = 2; i < count; ++i) {
    const std::string argument = arguments[i];
    options[argument.substr(0, argument.find('='))] = std::atoll(argument.c_str() + argument.find('=') + 1);
  }
  const int64_t q = option("queries"), n = option("codes"), width = option("width");
  Array<uint8_t> queries(q * width, option("query_shift")), database(n * width, option("shift"));
  queries.read();
  database.read();
  Ranking ranking = make_ranking(codes_at(queries.data(), q, width), codes_at(database.data(), n, width));
  emulator::Launcher launcher{option("blocks", 3), static_cast<int>(option("threads", 1024))};
  const std::string task = arguments[1];
  if (task == "neighbours") neighbours(launcher, ranking);
  return 0;
}
