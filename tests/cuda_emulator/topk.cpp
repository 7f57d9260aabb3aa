// topk NAME=VALUE ... < queries, database, mask if mask=1, ids if ids=1 > distances, indices: the host code of
// hamming_topk.cuh and its kernels. Options: queries, codes, width, k; shift: bytes before the first code and query;
// processors of the GPU, threads of a block that loops; matrices, batch, capacity, sample, selected: TopkOptions;
// settled=1: then a byte a query, 0 where the filter did not suffice.
#include "launcher.h"  // first: it stands in for what nvcc defines

#include "arrays.h"
#include "cuda/hamming_topk.cuh"

int main(int count, char** arguments) {
  using namespace adsq::cuda;
  read_options(arguments + 1, count - 1);
  const int64_t q = option("queries"), n = option("codes"), width = option("width"), k = option("k");
  Array<uint8_t> queries(q * width, option("shift")), database(n * width, option("shift"));
  queries.read();
  database.read();
  Array<bool> mask(n * option("mask"));
  Array<int64_t> ids(n * option("ids")), indices(q * k);
  Array<int32_t> distances(q * k);
  mask.read();
  ids.read();
  TopkOptions options(q, n, k, option("matrices") != 0);
  options.queries_at_a_time = option("batch", options.queries_at_a_time);
  options.capacity = option("capacity", options.capacity);
  options.sample = option("sample", options.sample);
  options.max_selected = option("selected", options.max_selected);
  emulator::Launcher launcher;
  if (option("threads")) launcher.most_threads = static_cast<int>(option("threads"));
  launcher.multiprocessors = static_cast<int>(option("processors", launcher.multiprocessors));
  hamming_topk(launcher, {queries.data(), q, width}, {database.data(), n, width},
               option("mask") ? mask.data() : nullptr, k,
               {distances.data(), indices.data(), option("ids") ? ids.data() : nullptr}, allocate, options);
  distances.write();
  indices.write();
  if (option("settled") && k <= options.max_selected) {  // what the selection has left of a single batch: list and its
                                                         // size, the fifth and sixth
    const auto* list = reinterpret_cast<const int*>(allocated[4].data());
    Array<uint8_t> settled(q);
    std::memset(settled.data(), 1, static_cast<size_t>(q));
    for (unsigned i = 0; i < *reinterpret_cast<const unsigned*>(allocated[5].data()); ++i) settled.data()[list[i]] = 0;
    settled.write();
  }
}
