#include "worker/rpc/status_details.h"

#include "absl/strings/cord.h"
#include "tidepool/v1/common.pb.h"

namespace tidepool {
namespace {

constexpr char kRetryInfo[] = "type.googleapis.com/google.rpc.RetryInfo";

}  // namespace

void SetRetryAfter(absl::Duration delay, absl::Status* status) {
  v1::RetryInfo info;
  info.mutable_retry_delay()->set_seconds(absl::IDivDuration(delay, absl::Seconds(1), &delay));
  info.mutable_retry_delay()->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(delay)));
  status->SetPayload(kRetryInfo, absl::Cord(info.SerializeAsString()));
}

std::string StatusDetailsOf(const absl::Status& status) {
  const absl::optional<absl::Cord> retry = status.GetPayload(kRetryInfo);
  if (!retry.has_value()) return "";
  v1::StatusDetails details;
  details.set_code(static_cast<int>(status.code()));
  details.set_message(std::string(status.message()));
  google::protobuf::Any& any = *details.add_details();
  any.set_type_url(kRetryInfo);
  any.set_value(std::string(*retry));
  return details.SerializeAsString();
}

}  // namespace tidepool
