// Values as the frames of a FetchBlocks call bring them.
#ifndef TIDEPOOL_CACHESERVICE_REMOTE_FETCHED_VALUES_H_
#define TIDEPOOL_CACHESERVICE_REMOTE_FETCHED_VALUES_H_

#include <grpcpp/support/byte_buffer.h>

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tidepool {

class FetchedValues {
 public:
  // That many were asked for.
  explicit FetchedValues(size_t count) : values_(count), sizes_(count, 0) {}

  // The next message, which it empties. DataLoss when it does not belong here: then nothing more is taken.
  absl::Status Take(grpc::ByteBuffer* message);
  // What Take has said at last.
  const absl::Status& bad() const { return bad_; }
  // In the order asked, nullopt for a miss. DataLoss when one has not come in full.
  absl::StatusOr<std::vector<std::optional<std::string>>> Values() &&;

 private:
  absl::Status Append(grpc::ByteBuffer* message);

  std::vector<std::optional<std::string>> values_;
  std::vector<size_t> sizes_;  // that they are to have
  absl::Status bad_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_REMOTE_FETCHED_VALUES_H_
