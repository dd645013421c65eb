// tidepool bench: replays a trace, or runs a benchmark program that was built beside this one.
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/cli/bench_replay.h"
#include "client/cli/cli.h"

namespace tidepool::cli {
namespace {

constexpr char kQualityProgram[] = "quality_report";

int BenchMain(const Arguments& arguments) {
  if (arguments.empty()) return UsageError("bench: what to measure is missing: quality or replay");
  if (arguments[0] == "replay") return BenchReplayMain(Arguments(arguments.begin() + 1, arguments.end()));
  if (arguments[0] != "quality") {
    return UsageError(absl::StrCat("bench: '", arguments[0], "' is not quality or replay"));
  }
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::string program = (self.parent_path() / kQualityProgram).string();
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (size_t i = 1; i < arguments.size(); ++i) argv.push_back(const_cast<char*>(arguments[i].c_str()));
  argv.push_back(nullptr);
  if (!error) execv(program.c_str(), argv.data());
  return Fail(absl::FailedPreconditionError(
      absl::StrCat("bench: cannot run ", program, ": ", error ? error.message() : std::strerror(errno),
                   " (cmake --build --preset release --target ", kQualityProgram, " makes it)")));
}

}  // namespace

Command BenchCommand() {
  return {
      .name = "bench",
      .arguments = "quality|replay [OPTIONS]",
      .summary = "what compression costs; what a cache would hit",
      .details =
          "quality runs quality_report, which is built beside this program, with the options that follow (bench "
          "quality "
          "--help lists them):\nanswers of a lookup model, and a real model's fidelity to its own full cache, by "
          "policy, budget and recall; a line for\neach as soon as it is known, all of them as JSON with "
          "--json=FILE. scripts/bench quality also draws the table and the plot.\n  tidepool bench quality "
          "--suites=lookup --presets=snapkv --budgets=0.1 --recall=off,sync\n"
          "replay TRACE runs a trace of requests through replacement policies (bench replay --help lists its options) "
          "and prints\ntheir prefix hit ratios by cache size.\n"
          "  tidepool bench replay conversation_trace.jsonl.gz --sizes=1000,10000 --policies=lru,arc,chain",
      .run = BenchMain,
      .takes_all = true,
  };
}

}  // namespace tidepool::cli
