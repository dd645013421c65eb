// Block values as the frames of a FetchBlocks call bring them, verified when they are complete: they are still in the
// processor's caches then.
#ifndef TIDEPOOL_CACHESERVICE_REMOTE_FETCHED_VALUES_H_
#define TIDEPOOL_CACHESERVICE_REMOTE_FETCHED_VALUES_H_

#include <grpcpp/support/byte_buffer.h>

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace tidepool {

class FetchedValues {
 public:
  // That many were asked for. `unchecked`: the frames have no checksums.
  FetchedValues(size_t count, bool unchecked) : unchecked_(unchecked), parts_(count) {}

  // The next message, which it empties. DataLoss when it does not belong here: then nothing more is taken.
  absl::Status Take(grpc::ByteBuffer* message);
  // What Take has said at last.
  const absl::Status& bad() const { return bad_; }
  // After the last message. DataLoss when a value has not come in full.
  absl::Status CheckComplete() const;

  // Indices of values that differ from their own checksums.
  std::vector<size_t> damaged() const;
  // Takes the values of `others`, which were asked for instead of those with the indices.
  void Replace(const std::vector<size_t>& indices, FetchedValues others);

  // In the order asked, nullopt for a miss and for what is damaged.
  std::vector<std::optional<std::string>> Values() &&;

 private:
  struct Part {
    std::optional<std::string> value;  // nullopt: nothing has come
    size_t bytes = 0;                  // that it is to have
    bool damaged = false;
  };

  absl::Status Append(grpc::ByteBuffer* message);

  bool unchecked_;
  std::vector<Part> parts_;
  absl::Status bad_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_REMOTE_FETCHED_VALUES_H_
