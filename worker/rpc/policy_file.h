// Combinations of stages that a worker offers under names of its own, beside the presets: --policies FILE.
#ifndef TIDEPOOL_WORKER_RPC_POLICY_FILE_H_
#define TIDEPOOL_WORKER_RPC_POLICY_FILE_H_

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "tidepool/v1/generation.pb.h"

namespace tidepool {

class NamedPolicies {
 public:
  NamedPolicies() = default;

  // A PolicyFile as JSON. InvalidArgument naming the policy and the field: a name that is a preset's or stands twice, a
  // combination that makes no sense.
  static absl::StatusOr<NamedPolicies> Parse(const std::string& json);
  // The same of a file. InvalidArgument when it cannot be read.
  static absl::StatusOr<NamedPolicies> Read(const std::string& path);

  // By name.
  const std::map<std::string, v1::PolicyFile::Policy>& policies() const { return policies_; }
  // Whether the preset that is asked for is one of these.
  bool Knows(const v1::CompressionParams& params) const { return policies_.count(params.preset()) > 0; }
  // Puts what the policy of that name says under what `params` say: their fields win, lists are added up.
  void Apply(v1::CompressionParams& params) const;

 private:
  std::map<std::string, v1::PolicyFile::Policy> policies_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_RPC_POLICY_FILE_H_
