#include "tests/fuzz/fuzz_target.h"

namespace tidepool::test {

__attribute__((weak)) std::vector<std::string> FuzzSeeds() { return {std::string()}; }

}  // namespace tidepool::test
