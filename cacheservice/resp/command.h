// One RESP command as bytes, by hiredis' formatter. Movable; owns its bytes.
#ifndef TIDEPOOL_CACHESERVICE_RESP_COMMAND_H_
#define TIDEPOOL_CACHESERVICE_RESP_COMMAND_H_

#include <cstdlib>
#include <memory>
#include <string_view>

#include "absl/types/span.h"

namespace tidepool {

class RespCommand {
 public:
  // Arguments may hold any bytes. At least one.
  explicit RespCommand(absl::Span<const std::string_view> arguments);

  std::string_view bytes() const { return {bytes_.get(), size_}; }

 private:
  struct Free {
    void operator()(char* bytes) const { std::free(bytes); }
  };
  std::unique_ptr<char, Free> bytes_;
  size_t size_ = 0;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_RESP_COMMAND_H_
