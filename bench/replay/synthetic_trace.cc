// Writes a synthetic trace in the format that tidepool bench replay reads.
#include <cstdio>
#include <cstdlib>

#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "bench/replay/synthetic_traces.h"

int main(int argc, char** argv) {
  uint32_t seed = 1;
  if (argc < 2 || argc > 3 || (argc == 3 && !absl::SimpleAtoi(argv[2], &seed))) {
    std::fprintf(stderr, "synthetic_trace KIND [SEED]: JSON lines for tidepool bench replay. KIND:\n");
    for (const auto& kind : tidepool::bench::SyntheticKinds()) {
      std::fprintf(stderr, "  %-11s %s\n", kind.name, kind.what);
    }
    return 2;
  }
  const auto requests = tidepool::bench::MakeSyntheticTrace(argv[1], seed);
  if (!requests.ok()) {
    std::fprintf(stderr, "synthetic_trace: %s\n", std::string(requests.status().message()).c_str());
    return 2;
  }
  for (const auto& request : *requests) {
    std::printf("{\"timestamp\": %.0f, \"input_length\": %zu, \"output_length\": 0, \"hash_ids\": [%s]}\n",
                1000 * request.second, 512 * request.blocks.size(), absl::StrJoin(request.blocks, ", ").c_str());
  }
}
