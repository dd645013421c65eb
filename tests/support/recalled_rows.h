// Rows of a recall whose bytes tell their position, and what a test says of each.
#ifndef TIDEPOOL_TESTS_SUPPORT_RECALLED_ROWS_H_
#define TIDEPOOL_TESTS_SUPPORT_RECALLED_ROWS_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace tidepool::test {

inline constexpr size_t kRowBytes = 4;

inline std::string RowOf(int32_t position) { return std::string(kRowBytes, static_cast<char>('a' + position % 26)); }

// Its bytes, or the reason why there are none.
inline std::string SaidOf(int32_t position, const char* bytes, const absl::Status& why) {
  return std::to_string(position) + " " +
         (bytes != nullptr ? std::string(bytes, kRowBytes) : absl::StatusCodeToString(why.code()));
}

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_SUPPORT_RECALLED_ROWS_H_
