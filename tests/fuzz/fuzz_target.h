// What a fuzz target defines. Built with clang, libFuzzer drives it; with another compiler mutation_driver.cc runs it
// over a fixed number of mutations of its seeds, so that every build executes every target.
#ifndef TIDEPOOL_TESTS_FUZZ_FUZZ_TARGET_H_
#define TIDEPOOL_TESTS_FUZZ_FUZZ_TARGET_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

// One input. Crashes, sanitizer reports and failed checks are the findings; returns 0.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace tidepool::test {

// Inputs worth mutating. A target need not define it: then the mutations start from nothing.
std::vector<std::string> FuzzSeeds();

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_FUZZ_FUZZ_TARGET_H_
