// One RESP2 reply as a value, and the reader that makes replies out of received bytes within limits: whatever a server
// sends, the reader holds no more than them and fails with a status. hiredis does the parsing; its headers stay in the
// .cc. Not thread-safe.
#ifndef TIDEPOOL_CACHESERVICE_RESP_REPLY_H_
#define TIDEPOOL_CACHESERVICE_RESP_REPLY_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

struct redisReader;

namespace tidepool {

struct RespReply {
  enum class Type : uint8_t { kNil, kStatus, kError, kInteger, kString, kArray };
  Type type = Type::kNil;
  int64_t integer = 0;
  std::string text;  // of a status, a string, or an error: that one printable and at most 512 bytes
  std::vector<RespReply> elements;

  bool is(Type other) const { return type == other; }
  // An error whose first word is `code`, as in "MOVED 3999 127.0.0.1:6381".
  bool IsError(std::string_view code) const;
};

struct RespLimits {
  size_t reply_bytes = size_t{2} << 20;  // text of one reply in all, and bytes received of it
  size_t elements = 1 << 17;             // of one reply in all; nesting is limited to 7 by hiredis
};

class RespReader {
 public:
  explicit RespReader(const RespLimits& limits = {});
  ~RespReader();
  RespReader(const RespReader&) = delete;
  RespReader& operator=(const RespReader&) = delete;

  // Takes received bytes. ResourceExhausted: a reply is larger than the limit. Callers take all replies between calls.
  absl::Status Feed(std::string_view bytes);
  // The next whole reply, or nullopt: more bytes are needed. DataLoss: not RESP. ResourceExhausted: past a limit. After
  // an error the reader is of no more use.
  absl::StatusOr<std::optional<RespReply>> Next();

 private:
  struct Building;
  std::unique_ptr<Building> building_;
  std::unique_ptr<redisReader, void (*)(redisReader*)> reader_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_RESP_REPLY_H_
