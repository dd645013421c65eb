#include "cacheservice/resp/command.h"

#include <hiredis/hiredis.h>

#include <vector>

#include "base/check.h"

namespace tidepool {

RespCommand::RespCommand(absl::Span<const std::string_view> arguments) {
  TIDEPOOL_CHECK(!arguments.empty());
  std::vector<const char*> pointers;
  std::vector<size_t> sizes;
  for (const std::string_view argument : arguments) {
    pointers.push_back(argument.data());
    sizes.push_back(argument.size());
  }
  char* bytes = nullptr;
  const int size = redisFormatCommandArgv(&bytes, static_cast<int>(arguments.size()), pointers.data(), sizes.data());
  TIDEPOOL_CHECK(size > 0);  // it fails for want of memory only
  bytes_.reset(bytes);
  size_ = static_cast<size_t>(size);
}

}  // namespace tidepool
