// Gives libFuzzer the target's seeds: they are written to a folder that is added to its corpora, where it is to make
// inputs and not to run files that it is given.
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tests/fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  for (int i = 1; i < *argc; ++i) {
    if (std::filesystem::is_regular_file((*argv)[i])) return 0;
  }
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
