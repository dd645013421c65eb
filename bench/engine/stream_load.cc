// Several answers at once from one worker, in one process that does little else: when each token came. As JSON on
// stdout:
// [{"times": [seconds since the start, of each message with tokens], "usage": {...}}, ...].
#include <google/protobuf/util/json_util.h>

#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "base/flags.h"
#include "client/cli/cli.h"
#include "client/generation_client.h"

ABSL_FLAG(int, streams, 1, "answers at once");
ABSL_FLAG(std::string, context_file, "", "text of the prompts");
ABSL_FLAG(std::string, beginning, "",
          "what the prompts begin with, and the stream's number: nobody has stored their beginning");

namespace tidepool {
namespace {

struct Stream {
  std::vector<double> times;
  absl::StatusOr<v1::Finished> finished;
};

int Main() {
  cli::GenerationFlags flags;
  if (const absl::Status read = cli::ReadGenerationFlags(&flags); !read.ok()) return cli::UsageError(read);
  std::ifstream in(absl::GetFlag(FLAGS_context_file), std::ios::binary);
  if (!in) return cli::UsageError(absl::StrCat("--context-file: cannot read ", absl::GetFlag(FLAGS_context_file)));
  const std::string text(std::istreambuf_iterator<char>(in), {});

  std::vector<Stream> streams(absl::GetFlag(FLAGS_streams));
  std::vector<std::thread> threads;
  const absl::Time start = absl::Now();
  for (size_t i = 0; i < streams.size(); ++i) {
    threads.emplace_back([&, i] {
      GenerationClient client(cli::WorkerAddress());
      v1::GenerateRequest request;
      cli::Apply(flags, request);
      request.set_text(absl::StrCat(absl::GetFlag(FLAGS_beginning), i, ": ", text));
      streams[i].finished = client.Generate(request, [&, i](const v1::GenerateResponse& response) {
        if (response.has_tokens()) streams[i].times.push_back(absl::ToDoubleSeconds(absl::Now() - start));
      });
    });
  }
  for (std::thread& thread : threads) thread.join();

  std::vector<std::string> lines;
  for (const Stream& stream : streams) {
    if (!stream.finished.ok()) return cli::Fail(stream.finished.status());
    std::string usage;
    if (!google::protobuf::util::MessageToJsonString(stream.finished->usage(), &usage).ok()) return cli::kFailed;
    lines.push_back(absl::StrCat("{\"times\": [", absl::StrJoin(stream.times, ", "), "], \"usage\": ", usage, "}"));
  }
  std::printf("[%s]\n", absl::StrJoin(lines, ",\n ").c_str());
  return cli::kOk;
}

}  // namespace
}  // namespace tidepool

int main(int argc, char** argv) {
  const absl::StatusOr<std::vector<std::string>> rest = tidepool::ParseFlags(argc, argv);
  if (!rest.ok()) return tidepool::cli::UsageError(rest.status());
  return tidepool::Main();
}
