#include "client/cli/bench_replay.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"
#include "cacheservice/replay/replay.h"
#include "cacheservice/replay/trace.h"

namespace tidepool::cli {
namespace {

constexpr uint64_t kMaxBlocks = 100'000'000;
constexpr size_t kMaxSizes = 64;

struct Options {
  std::string trace;
  std::vector<uint64_t> sizes = {1000, 3000, 10000, 30000};  // those of the table in docs/decisions/0011-replacement.md
  std::vector<const NamedPolicy*> policies;
  std::string json;
};

std::string PolicyNames() {
  return absl::StrJoin(ReplayPolicies(), ",",
                       [](std::string* out, const NamedPolicy& policy) { absl::StrAppend(out, policy.name); });
}

absl::Status SetSizes(const std::string& list, Options* options) {
  options->sizes.clear();
  for (const std::string& item : std::vector<std::string>(absl::StrSplit(list, ','))) {
    uint64_t size = 0;
    if (!absl::SimpleAtoi(item, &size) || size < 1 || size > kMaxBlocks) {
      return absl::InvalidArgumentError(absl::StrCat("--sizes: '", item, "' is not in 1 to ", kMaxBlocks, " blocks"));
    }
    options->sizes.push_back(size);
  }
  if (options->sizes.size() > kMaxSizes) {
    return absl::InvalidArgumentError(
        absl::StrCat("--sizes: ", options->sizes.size(), " sizes are more than ", kMaxSizes));
  }
  return absl::OkStatus();
}

absl::Status SetPolicies(const std::string& list, Options* options) {
  options->policies.clear();
  for (const std::string& item : std::vector<std::string>(absl::StrSplit(list, ','))) {
    const auto& all = ReplayPolicies();
    const auto found =
        std::find_if(all.begin(), all.end(), [&](const NamedPolicy& policy) { return policy.name == item; });
    if (found == all.end()) {
      return absl::InvalidArgumentError(absl::StrCat("--policies: '", item, "' is not one of ", PolicyNames()));
    }
    options->policies.push_back(&*found);
  }
  return absl::OkStatus();
}

absl::StatusOr<Options> ReadArguments(const Arguments& arguments) {
  Options options;
  for (const NamedPolicy& policy : ReplayPolicies()) options.policies.push_back(&policy);
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (!arguments[i].starts_with("--")) {
      if (!options.trace.empty()) {
        return absl::InvalidArgumentError(absl::StrCat("bench replay: unexpected argument '", arguments[i], "'"));
      }
      options.trace = arguments[i];
      continue;
    }
    std::pair<std::string, std::string> flag = absl::StrSplit(arguments[i], absl::MaxSplits('=', 1));
    if (flag.first != "--sizes" && flag.first != "--policies" && flag.first != "--json") {
      return absl::InvalidArgumentError(absl::StrCat("bench replay: '", flag.first, "' is not a flag of it"));
    }
    if (arguments[i].find('=') == std::string::npos) {
      if (i + 1 == arguments.size())
        return absl::InvalidArgumentError(absl::StrCat(flag.first, ": a value is missing"));
      flag.second = arguments[++i];
    }
    if (flag.first == "--sizes") TP_RETURN_IF_ERROR(SetSizes(flag.second, &options));
    if (flag.first == "--policies") TP_RETURN_IF_ERROR(SetPolicies(flag.second, &options));
    if (flag.first == "--json") options.json = flag.second;
  }
  if (options.trace.empty()) return absl::InvalidArgumentError("bench replay: which trace is missing");
  return options;
}

double Ratio(uint64_t hits, const Trace& trace) {
  return trace.references() == 0 ? 0 : static_cast<double>(hits) / static_cast<double>(trace.references());
}

// Prints the table row by row and returns what --json writes.
nlohmann::ordered_json RunAll(const Options& options, const Trace& trace) {
  const Replay replay(&trace);
  const double most = Ratio(replay.MostHits(), trace);
  std::printf("%s: %zu requests, %zu block references, %u distinct; an infinite cache hits %.4f\n%10s",
              options.trace.c_str(), trace.requests(), trace.references(), trace.distinct_blocks(), most, "blocks");
  for (const NamedPolicy* policy : options.policies) std::printf(" %8s", policy->name);
  std::printf("\n");
  nlohmann::ordered_json results = nlohmann::ordered_json::array();
  for (const uint64_t blocks : options.sizes) {
    std::printf("%10s", absl::StrCat(blocks).c_str());
    for (const NamedPolicy* policy : options.policies) {
      const uint64_t hits = replay.Hits(policy->make(blocks).get());
      std::printf(" %8.4f", Ratio(hits, trace));
      std::fflush(stdout);
      results.push_back({{"blocks", blocks}, {"policy", policy->name}, {"hits", hits}, {"ratio", Ratio(hits, trace)}});
    }
    std::printf("\n");
  }
  return {{"trace", options.trace},           {"requests", trace.requests()},
          {"references", trace.references()}, {"distinct_blocks", trace.distinct_blocks()},
          {"infinite_ratio", most},           {"results", std::move(results)}};
}

absl::Status Run(const Arguments& arguments) {
  TP_ASSIGN_OR_RETURN(const Options options, ReadArguments(arguments));
  std::ofstream json;
  if (!options.json.empty()) {
    json.open(options.json);
    if (!json) return absl::UnavailableError(absl::StrCat("--json: cannot write ", options.json));
  }
  TP_ASSIGN_OR_RETURN(const Trace trace, Trace::Read(options.trace));
  const nlohmann::ordered_json results = RunAll(options, trace);
  if (options.json.empty()) return absl::OkStatus();
  json << results.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) << "\n";
  json.close();
  if (!json) return absl::UnavailableError(absl::StrCat("--json: cannot write ", options.json));
  return absl::OkStatus();
}

}  // namespace

int BenchReplayMain(const Arguments& arguments) {
  if (std::find(arguments.begin(), arguments.end(), "--help") != arguments.end()) {
    std::printf("%s", BenchReplayHelp().c_str());
    return kOk;
  }
  const absl::Status status = Run(arguments);
  return status.ok() ? kOk : Fail(status);
}

std::string BenchReplayHelp() {
  return absl::StrCat(
      "tidepool bench replay TRACE [OPTIONS]: prefix hit ratios of a trace of requests, by replacement policy and "
      "cache "
      "size.\n\nTRACE is JSON lines, plain or gzip, with timestamp, input_length, output_length and hash_ids (one id "
      "for "
      "each block of\nthe prompt), as the Mooncake authors publish them. A block counts only while all earlier blocks "
      "of "
      "its request are held.\n\n  --sizes N,N,...     cache sizes in blocks, 1 to ",
      kMaxBlocks, " each, at most ", kMaxSizes, "; default 1000,3000,10000,30000\n  --policies P,P,...  of ",
      PolicyNames(),
      "; default all. chain is the memory\n                      tier's default, optimum knows the future\n  --json "
      "FILE "
      "        writes the results there as JSON\n");
}

}  // namespace tidepool::cli
