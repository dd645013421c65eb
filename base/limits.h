// Hard limits: every queue, message, file and request has one. A value past its limit is refused with an error that
// names it.
#ifndef TIDEPOOL_BASE_LIMITS_H_
#define TIDEPOOL_BASE_LIMITS_H_

#include <cstddef>
#include <cstdint>

namespace tidepool {

inline constexpr int kPageSlots = 16;                // token slots of one slot page
inline constexpr int kBlockTokens = 64;              // positions of one stored block: one bit each in a row mask
inline constexpr size_t kMaxFrameBytes = 1 << 20;    // payload of one stream message
inline constexpr size_t kMaxMessageBytes = 8 << 20;  // any gRPC message received
inline constexpr size_t kMaxPromptBytes = 4 << 20;   // text of one request
inline constexpr int kMaxStopStrings = 16;
inline constexpr size_t kMaxStopStringBytes = 1024;
inline constexpr int kMaxStopTokenIds = 64;
inline constexpr int kMaxLogprobs = 20;     // alternatives per token
inline constexpr int kMaxLogitBias = 1024;  // entries
inline constexpr size_t kMaxSessionIdBytes = 128;
inline constexpr size_t kMaxTenantBytes = 128;
inline constexpr int kMaxQueuedRequests = 256;  // waiting for admission; past it RESOURCE_EXHAUSTED
inline constexpr int kMaxActiveSequences = 64;

}  // namespace tidepool

#endif  // TIDEPOOL_BASE_LIMITS_H_
