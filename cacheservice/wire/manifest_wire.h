// A session manifest as the bytes that ManifestFrame cuts up.
#ifndef TIDEPOOL_CACHESERVICE_WIRE_MANIFEST_WIRE_H_
#define TIDEPOOL_CACHESERVICE_WIRE_MANIFEST_WIRE_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "cacheservice/api/manifest_store.h"

namespace tidepool {

inline constexpr size_t kMaxManifestWireBytes = size_t{320} << 20;

std::string ManifestToWire(const SessionManifest& manifest);
// DataLoss when the bytes are not what ManifestToWire writes.
absl::StatusOr<SessionManifest> ManifestFromWire(std::string_view bytes);

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_WIRE_MANIFEST_WIRE_H_
