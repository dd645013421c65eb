// Sizes as people write them: "512", "64KiB", "1.5GiB".
#ifndef TIDEPOOL_BASE_BYTE_SIZE_H_
#define TIDEPOOL_BASE_BYTE_SIZE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tidepool {

// A number with an optional suffix B, KiB, MiB, GiB, TiB (powers of 1024) or KB, MB, GB, TB (powers of 1000). nullopt
// when it is not one, negative, or does not fit.
std::optional<uint64_t> ParseByteSize(std::string_view text);
// At most one decimal: "1.5 GiB".
std::string FormatByteSize(uint64_t bytes);

}  // namespace tidepool

#endif  // TIDEPOOL_BASE_BYTE_SIZE_H_
