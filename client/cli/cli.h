// What the commands of the CLI share.
#ifndef TIDEPOOL_CLIENT_CLI_CLI_H_
#define TIDEPOOL_CLIENT_CLI_CLI_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "google/protobuf/message.h"
#include "tidepool/v1/generation.pb.h"

namespace tidepool::cli {

// Exit codes, also in --help.
enum ExitCode { kOk = 0, kFailed = 1, kUsage = 2, kUnreachable = 3 };

// A command gets the arguments after its name and returns an exit code.
using Arguments = std::vector<std::string>;
int Generate(const Arguments& arguments);
int Chat(const Arguments& arguments);
int Admin(const Arguments& arguments);
int ModelCommand(const Arguments& arguments);
int Serve(const Arguments& arguments);

// Prints to stderr and chooses the exit code: kUnreachable for Unavailable, kUsage for InvalidArgument, else kFailed.
int Fail(const absl::Status& status);
int UsageError(const std::string& message);

bool Json();  // --json
// One line of JSON on stdout, field names as in the protocol.
void PrintJson(const google::protobuf::Message& message);
std::string WorkerAddress();  // --worker
std::string CacheAddress();   // --cache

// What the generation flags say. InvalidArgument naming the flag.
absl::Status FillFromFlags(v1::SamplingParams& sampling, v1::StopParams& stop, v1::CompressionParams& compression);
// One line for people: tokens, speed, what is on the device.
std::string Summary(const v1::Usage& usage);

}  // namespace tidepool::cli

#endif  // TIDEPOOL_CLIENT_CLI_CLI_H_
