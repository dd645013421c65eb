// fault_proxy HOST:PORT: a FaultProxy before that address as a program, for scripts. Prints `listening on HOST:PORT`,
// then takes a line of faults at a time from standard input, in place of those before: any of `delay=MS jitter=MS
// rate=BYTES blackhole refuse`, an empty line for none, or one of the single acts `drop` and `half-close`. Answers each
// with `ok`. Ends with its standard input.
#include <cstdio>
#include <exception>
#include <iostream>
#include <sstream>
#include <string>

#include "tests/support/fault_proxy.h"

namespace tidepool::test {
namespace {

// Of NAME=VALUE.
int64_t ValueOf(const std::string& word) { return std::stoll(word.substr(word.find('=') + 1)); }

void Obey(FaultProxy& proxy, const std::string& line) {
  if (line == "drop") return proxy.Drop();
  if (line == "half-close") return proxy.HalfClose();
  FaultProxy::Faults faults;
  std::istringstream words(line);
  for (std::string word; words >> word;) {
    const std::string name = word.substr(0, word.find('='));
    if (name == "delay") {
      faults.delay = std::chrono::milliseconds(ValueOf(word));
    } else if (name == "jitter") {
      faults.jitter = std::chrono::milliseconds(ValueOf(word));
    } else if (name == "rate") {
      faults.bytes_per_second = ValueOf(word);
    } else if (name == "blackhole") {
      faults.blackhole = true;
    } else if (name == "refuse") {
      faults.refuse = true;
    } else {
      throw std::runtime_error("'" + word + "' is no fault");
    }
  }
  proxy.Set(faults);
}

int Main(const std::string& target) {
  try {
    FaultProxy proxy(target);
    std::printf("listening on %s\n", proxy.address().c_str());
    std::fflush(stdout);
    for (std::string line; std::getline(std::cin, line);) {
      Obey(proxy, line);
      std::puts("ok");
      std::fflush(stdout);
    }
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "fault_proxy: %s\n", error.what());
    return 1;
  }
}

}  // namespace
}  // namespace tidepool::test

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: fault_proxy HOST:PORT\n");
    return 2;
  }
  return tidepool::test::Main(argv[1]);
}
