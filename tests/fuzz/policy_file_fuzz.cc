// Any bytes as a worker's file of named policies: refused with a reason, or policies each of which a request may name.
#include <google/protobuf/stubs/logging.h>

#include <string>

#include "base/check.h"
#include "tests/fuzz/fuzz_target.h"
#include "worker/rpc/convert_compression.h"
#include "worker/rpc/policy_file.h"

namespace tidepool {
namespace {

void RunInput(const std::string& json) {
  [[maybe_unused]] static const auto silent = google::protobuf::SetLogHandler(nullptr);
  const absl::StatusOr<NamedPolicies> policies = NamedPolicies::Parse(json);
  if (!policies.ok()) {
    TIDEPOOL_CHECK(policies.status().code() == absl::StatusCode::kInvalidArgument);
    return;
  }
  for (const auto& [name, policy] : policies->policies()) {
    v1::CompressionParams params;
    params.set_preset(name);
    TIDEPOOL_CHECK(policies->Knows(params));
    policies->Apply(params);
    TIDEPOOL_CHECK(CompressionFrom(params, /*for_session=*/false).ok());
  }
}

}  // namespace

namespace test {

std::vector<std::string> FuzzSeeds() {
  return {
      R"({"policies": [{"name": "mine", "compression": {"preset": "snapkv", "budgetFraction": 0.2}}]})",
      R"({"policies": [{"name": "a", "compression": {"preset": "d2o"}}, {"name": "b", "compression": {"preset": "tova", "recall": {"mode": "RECALL_MODE_SYNC"}}}]})",
      "{}"};
}

}  // namespace test
}  // namespace tidepool

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tidepool::RunInput(std::string(reinterpret_cast<const char*>(data), size));
  return 0;
}
