// Gives libFuzzer the target's seeds: they are written to a folder that is added to its corpora.
#include <cstdlib>
#include <fstream>

#include "tests/fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  static char folder[] = "/tmp/tidepool_fuzz_XXXXXX";
  if (mkdtemp(folder) == nullptr) return 0;
  const std::vector<std::string> seeds = tidepool::test::FuzzSeeds();
  for (size_t i = 0; i < seeds.size(); ++i) {
    std::ofstream(std::string(folder) + "/" + std::to_string(i), std::ios::binary) << seeds[i];
  }
  static std::vector<char*> arguments(*argv, *argv + *argc);
  arguments.push_back(folder);
  *argc = static_cast<int>(arguments.size());
  arguments.push_back(nullptr);
  *argv = arguments.data();
  return 0;
}
