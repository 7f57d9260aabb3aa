// What the programs of the Hamming kernels share: options from the command line, and arrays from stdin and to stdout.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

inline std::map<std::string, int64_t> options_read;

// Reads NAME=VALUE from each argument.
inline void read_options(char** arguments, int count) {
  for (int i = 0; i < count; ++i) {
    const std::string argument = arguments[i];
    const size_t end = argument.find('=');
    options_read[argument.substr(0, end)] = std::atoll(argument.c_str() + end + 1);
  }
}

inline int64_t option(const char* name, int64_t otherwise = 0) {
  const auto found = options_read.find(name);
  return found == options_read.end() ? otherwise : found->second;
}

// Has its exact size, so that an access out of bounds is caught, and is full of garbage.
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

// Memory for the functions under test
inline std::vector<Array<uint8_t>> allocated;
inline void* allocate(int64_t bytes) {
  allocated.emplace_back(bytes);
  return allocated.back().data();
}
