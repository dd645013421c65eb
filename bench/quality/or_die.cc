#include "bench/quality/or_die.h"

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>

namespace tidepool::quality {

void Die(const std::string& message) {
  std::fprintf(stderr, "quality_report: %s\n", message.c_str());
  std::exit(1);
}

std::string ReadAll(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) Die("cannot read " + path);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

}  // namespace tidepool::quality
