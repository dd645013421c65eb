// Runs a fuzz target over mutations of its seeds, the same ones each time.
//   TIDEPOOL_FUZZ_RUNS   number of inputs; default 20,000
//   TIDEPOOL_FUZZ_SEED   of the generator; default 1
// With file names as arguments it runs those inputs instead (a finding of libFuzzer, for example).
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>

#include "tests/fuzz/fuzz_target.h"

namespace {

uint64_t FromEnvironment(const char* name, uint64_t fallback) {
  const char* value = std::getenv(name);
  return value == nullptr || *value == '\0' ? fallback : std::strtoull(value, nullptr, 10);
}

class Mutator {
 public:
  Mutator(std::vector<std::string> seeds, uint64_t seed) : seeds_(std::move(seeds)), random_(seed) {}

  std::string Next() {
    std::string input = seeds_[Below(seeds_.size())];
    const size_t changes = 1 + Below(6);
    for (size_t i = 0; i < changes; ++i) Change(&input);
    return input;
  }

 private:
  size_t Below(size_t limit) { return limit == 0 ? 0 : static_cast<size_t>(random_() % limit); }
  // Headers matter most, so half of the places are near the front.
  size_t Place(size_t size) { return Below(2) == 0 ? Below(std::min<size_t>(size, 512)) : Below(size); }

  void Change(std::string* input) {
    static constexpr uint64_t kEdges[] = {0,
                                          1,
                                          0x7f,
                                          0x80,
                                          0xff,
                                          0x7fff,
                                          0xffff,
                                          0x7fffffff,
                                          0x80000000,
                                          0xffffffff,
                                          1ull << 32,
                                          1ull << 61,
                                          0x7fffffffffffffff,
                                          0x8000000000000000,
                                          0xffffffffffffffff};
    const size_t at = Place(input->size());
    switch (Below(8)) {
      case 0:  // one bit
        if (!input->empty()) (*input)[at] = static_cast<char>((*input)[at] ^ (1 << Below(8)));
        return;
      case 1:  // one byte
        if (!input->empty()) (*input)[at] = static_cast<char>(random_());
        return;
      case 2:  // a number at an edge
      case 3: {
        const uint64_t edge = kEdges[Below(std::size(kEdges))] + Below(3) - 1;
        const size_t width = size_t{1} << Below(4);
        for (size_t i = 0; i < width && at + i < input->size(); ++i)
          (*input)[at + i] = static_cast<char>(edge >> (8 * i));
        return;
      }
      case 4: input->resize(Below(input->size() + 1)); return;
      case 5: input->erase(at, 1 + Below(16)); return;
      case 6: {  // random bytes
        std::string bytes(1 + Below(16), '\0');
        for (char& byte : bytes) byte = static_cast<char>(random_());
        input->insert(std::min(at, input->size()), bytes);
        return;
      }
      default: {  // a piece of another seed
        const std::string& other = seeds_[Below(seeds_.size())];
        const size_t from = Below(other.size());
        input->insert(std::min(at, input->size()), other.substr(from, 1 + Below(64)));
        return;
      }
    }
  }

  const std::vector<std::string> seeds_;
  std::mt19937_64 random_;
};

void Run(const std::string& input) {
  // A copy of exactly the input's size, so that a sanitizer sees a read past its end.
  const std::vector<uint8_t> bytes(input.begin(), input.end());
  LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
}

}  // namespace

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    std::ifstream in(argv[i], std::ios::binary);
    Run(std::string(std::istreambuf_iterator<char>(in), {}));
  }
  if (argc > 1) return 0;
  const std::vector<std::string> seeds = tidepool::test::FuzzSeeds();
  for (const std::string& seed : seeds) Run(seed);
  const uint64_t runs = FromEnvironment("TIDEPOOL_FUZZ_RUNS", 20000);
  Mutator mutator(seeds, FromEnvironment("TIDEPOOL_FUZZ_SEED", 1));
  for (uint64_t i = 0; i < runs; ++i) Run(mutator.Next());
  std::printf("%llu inputs from %zu seeds\n", static_cast<unsigned long long>(runs), seeds.size());
  return 0;
}
