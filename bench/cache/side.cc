#include "bench/cache/side.h"

#include "base/check.h"

namespace tidepool::bench {

void Side::Compare(const ReadValues& read, absl::Span<const Item> items) {
  TIDEPOOL_CHECK(read.size() == items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    std::string_view left = *items[i].value;
    for (const std::string_view part : read[i]) {
      TIDEPOOL_CHECK(left.substr(0, part.size()) == part);
      left.remove_prefix(part.size());
    }
    TIDEPOOL_CHECK(left.empty());
  }
}

}  // namespace tidepool::bench
