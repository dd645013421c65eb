// A trace of requests: which blocks each of them begins with. Read from the JSON lines that the Mooncake authors
// publish (kvcache-ai/Mooncake, FAST25-release/traces), plain or gzip:
//
//   {"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47, 48]}
//
// timestamp in ms, lengths in tokens, one id for each block of the prompt; equal ids mean equal prompts up to there.
// Other fields are passed over.
#ifndef TIDEPOOL_CACHESERVICE_REPLAY_TRACE_H_
#define TIDEPOOL_CACHESERVICE_REPLAY_TRACE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace tidepool {

class Trace {
 public:
  static constexpr size_t kMaxLineBytes = 4 << 20;
  static constexpr size_t kMaxRequests = 1 << 22;
  static constexpr size_t kMaxReferences = 1 << 26;  // blocks of all requests

  // InvalidArgument naming line and field; NotFound or Unavailable when the file cannot be read; ResourceExhausted past
  // a limit.
  static absl::StatusOr<Trace> Read(const std::string& path);

  // One line. The error names the field only.
  absl::Status AddLine(std::string_view line);
  // A request with these ids.
  absl::Status Add(absl::Span<const uint64_t> ids);

  size_t requests() const { return ends_.size(); }
  size_t references() const { return blocks_.size(); }
  uint32_t distinct_blocks() const { return static_cast<uint32_t>(numbers_.size()); }
  // The blocks of a request, numbered 0 to distinct_blocks() - 1 in the order in which the trace first names them.
  absl::Span<const uint32_t> Request(size_t index) const;

 private:
  std::vector<uint32_t> blocks_;
  std::vector<size_t> ends_;  // of each request, in blocks_
  absl::flat_hash_map<uint64_t, uint32_t> numbers_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_REPLAY_TRACE_H_
