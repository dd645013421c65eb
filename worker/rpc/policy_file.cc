#include "worker/rpc/policy_file.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <fstream>
#include <iterator>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "policies/retain/preset_table.h"
#include "worker/rpc/convert_compression.h"

namespace tidepool {
namespace {

constexpr int kMaxPolicies = 256;
constexpr size_t kMaxNameBytes = 64;

bool IsName(const std::string& name) {
  return !name.empty() && name.size() <= kMaxNameBytes && std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '-';
  });
}

absl::Status Check(const v1::PolicyFile::Policy& policy) {
  if (!IsName(policy.name())) {
    return absl::InvalidArgumentError("name: 1 to 64 lower-case letters, digits and hyphens are allowed");
  }
  if (FindPreset(policy.name()) != nullptr) return absl::InvalidArgumentError("name: is a preset's");
  if (policy.compression().preset().empty()) {
    return absl::InvalidArgumentError("compression.preset: is empty, it says what the policy starts from");
  }
  TP_ASSIGN_OR_RETURN(const CompressionSpec spec, CompressionFrom(policy.compression(), /*for_session=*/false));
  return ValidateCompression(spec);
}

}  // namespace

absl::StatusOr<NamedPolicies> NamedPolicies::Parse(const std::string& json) {
  v1::PolicyFile file;
  if (const auto status = google::protobuf::util::JsonStringToMessage(json, &file); !status.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("no PolicyFile: ", std::string(status.message())));
  }
  if (file.policies_size() > kMaxPolicies) {
    return absl::InvalidArgumentError(absl::StrCat("policies: ", file.policies_size(), ", at most ", kMaxPolicies));
  }
  NamedPolicies named;
  for (int i = 0; i < file.policies_size(); ++i) {
    const v1::PolicyFile::Policy& policy = file.policies(i);
    absl::Status status = Check(policy);
    if (status.ok() && !named.policies_.emplace(policy.name(), policy).second) {
      status = absl::InvalidArgumentError("name: stands twice");
    }
    if (!status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("policies[", i, "] '", policy.name(), "': ", status.message()));
    }
  }
  return named;
}

absl::StatusOr<NamedPolicies> NamedPolicies::Read(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string json(std::istreambuf_iterator<char>(in), {});
  if (!in.good() && !in.eof()) return absl::InvalidArgumentError(absl::StrCat("cannot read ", path));
  absl::StatusOr<NamedPolicies> named = Parse(json);
  if (named.ok()) return named;
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", named.status().message()));
}

void NamedPolicies::Apply(v1::CompressionParams& params) const {
  const auto policy = policies_.find(params.preset());
  if (policy == policies_.end()) return;
  v1::CompressionParams merged = policy->second.compression();
  params.clear_preset();
  merged.MergeFrom(params);
  params = std::move(merged);
}

}  // namespace tidepool
