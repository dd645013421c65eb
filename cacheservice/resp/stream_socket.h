// A connected byte stream to a RESP server: TCP or a Unix socket, plain or TLS. Never blocks but in Connect and
// WaitForSockets, and these until a deadline; never raises SIGPIPE. One thread at a time.
#ifndef TIDEPOOL_CACHESERVICE_RESP_STREAM_SOCKET_H_
#define TIDEPOOL_CACHESERVICE_RESP_STREAM_SOCKET_H_

#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "cacheservice/resp/resolve.h"
#include "cacheservice/resp/server_url.h"
#include "cacheservice/resp/tls_context.h"

struct ssl_st;

namespace tidepool {

class StreamSocket {
 public:
  // Tries each address of the host. With `tls` the server's certificate is verified, its name too. Unavailable:
  // refused, or no such host. DeadlineExceeded. PermissionDenied: TLS cannot be agreed on.
  static absl::StatusOr<std::unique_ptr<StreamSocket>> Connect(const RespEndpoint& endpoint,
                                                               std::shared_ptr<const RespTlsContext> tls,
                                                               absl::Time deadline);
  ~StreamSocket();
  StreamSocket(const StreamSocket&) = delete;
  StreamSocket& operator=(const StreamSocket&) = delete;

  // Bytes that went through, 0 when none can at the moment. Unavailable: the stream has ended or is broken.
  absl::StatusOr<size_t> TryRead(char* bytes, size_t size);
  absl::StatusOr<size_t> TryWrite(absl::Span<const std::string_view> pieces);

 private:
  friend void WaitForSockets(absl::Span<StreamSocket* const> readers, absl::Span<StreamSocket* const> writers,
                             absl::Time deadline);

  StreamSocket(int fd, std::shared_ptr<const RespTlsContext> tls) : fd_(fd), tls_(std::move(tls)) {}
  static absl::StatusOr<std::unique_ptr<StreamSocket>> ConnectTo(const SocketAddress& address,
                                                                 std::shared_ptr<const RespTlsContext> tls,
                                                                 absl::Time deadline);
  absl::Status Handshake(const RespEndpoint& endpoint, absl::Time deadline);
  absl::StatusOr<size_t> TlsResult(int result, const char* what);
  absl::StatusOr<size_t> TryWritePlain(absl::Span<const std::string_view> pieces);
  absl::StatusOr<size_t> TryWriteTls(absl::Span<const std::string_view> pieces);

  const int fd_;
  const std::shared_ptr<const RespTlsContext> tls_;  // null: plain
  ssl_st* ssl_ = nullptr;
  bool wants_write_ = false;      // TLS has to write before it can read on
  std::vector<char> tls_record_;  // small pieces gathered for one record
};

// Returns when one of `readers` may have something to read, one of `writers` room to write, or at the deadline.
void WaitForSockets(absl::Span<StreamSocket* const> readers, absl::Span<StreamSocket* const> writers,
                    absl::Time deadline);

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_RESP_STREAM_SOCKET_H_
