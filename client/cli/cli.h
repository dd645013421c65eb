// What the commands of the CLI share.
#ifndef TIDEPOOL_CLIENT_CLI_CLI_H_
#define TIDEPOOL_CLIENT_CLI_CLI_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/flags.h"
#include "google/protobuf/message.h"
#include "security/rpc/channel_security.h"
#include "tidepool/v1/generation.pb.h"

namespace tidepool::cli {

inline constexpr char kDefaultWorkerAddress[] = "127.0.0.1:7071";
inline constexpr char kDefaultCacheAddress[] = "127.0.0.1:7070";

// Exit codes, also in --help.
enum ExitCode { kOk = 0, kFailed = 1, kUsage = 2, kUnreachable = 3 };

// Of the flags by which commands reach a service.
inline constexpr char kChannelFlags[] = "security/rpc/channel_flags.cc";

// Gets the arguments after the command's name that are not flags; returns an exit code.
using Arguments = std::vector<std::string>;

struct Command {
  const char* name;
  const char* arguments;  // for the usage line
  const char* summary;    // one line
  const char* details;    // more of --help; may be empty
  FlagSet flags;          // others are refused
  int (*run)(const Arguments& arguments);
  bool takes_all = false;  // run gets flags as they are: they are another program's
};
Command GenerateCommand();
Command ChatCommand();
Command AdminCommand();
Command HealthCommand();
Command ModelCommand();
Command PoliciesCommand();
Command ServeCommand();
Command InspectCommand();
Command BenchCommand();
Command SizeCommand();
Command DoctorCommand();
Command CompletionCommand();
Command ManCommand();
// All, in the order of --help.
std::vector<Command> Commands();

// Prints to stderr - with --json also as {"error": {"code", "message"}} to stdout - and chooses the exit code:
// kUnreachable for Unavailable, kUsage for InvalidArgument, else kFailed.
int Fail(const absl::Status& status);
int UsageError(const std::string& message);
int UsageError(const absl::Status& status);

bool Json();                  // --json
std::string WorkerAddress();  // --worker, or where a worker listens by default
bool WorkerIsGiven();         // --worker was given
std::string CacheAddress();   // --cache, or where a cache listens by default
bool CacheIsGiven();          // --cache was given
absl::Time Deadline();        // --timeout from now
// The flags of security/rpc/channel_flags.cc. InvalidArgument naming the flag.
absl::StatusOr<std::shared_ptr<const ChannelSecurity>> ReadSecurity();

// What --prompt, --prompt-file or the standard input says. InvalidArgument naming the flag.
absl::StatusOr<std::string> ReadPrompt();

// One line of JSON on stdout (proto_json.h).
void PrintJson(const google::protobuf::Message& message);

// What the generation flags say (generation_flags.cc). InvalidArgument naming the flag.
struct GenerationFlags {
  v1::SamplingParams sampling;
  v1::StopParams stop;
  v1::CompressionParams compression;
  int logprobs = -1;  // -1: none
  std::string session;
};
absl::Status ReadGenerationFlags(GenerationFlags* flags);
// Sets the fields that v1::GenerateRequest and v1::ChatRequest share.
template <typename Request>
void Apply(const GenerationFlags& flags, Request& request) {
  *request.mutable_sampling() = flags.sampling;
  *request.mutable_stop() = flags.stop;
  if (flags.compression.ByteSizeLong() > 0) *request.mutable_compression() = flags.compression;
  if (flags.logprobs >= 0) request.set_logprobs(flags.logprobs);
  request.set_session_id(flags.session);
}

}  // namespace tidepool::cli

#endif  // TIDEPOOL_CLIENT_CLI_CLI_H_
