// A connection to one RESP server: commands go out together and their replies are read while they do, so that neither
// side waits for the other's buffers. After any failure, a missed deadline too, it is of no more use: replies that are
// still to come would be taken for others'. One thread at a time.
//
//   connection->Start({...});
//   RespConnection::Exchange({connection.get(), other.get()}, deadline);
//   connection->replies(), connection->status()
#ifndef TIDEPOOL_CACHESERVICE_RESP_CONNECTION_H_
#define TIDEPOOL_CACHESERVICE_RESP_CONNECTION_H_

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "cacheservice/resp/command.h"
#include "cacheservice/resp/reply.h"
#include "cacheservice/resp/server_url.h"
#include "cacheservice/resp/stream_socket.h"
#include "cacheservice/resp/tls_context.h"

namespace tidepool {

struct RespLogin {
  std::shared_ptr<const RespTlsContext> tls;  // null: plain text
  std::string user;                           // empty: the default user
  std::string password;                       // empty: no AUTH
};

class RespConnection {
 public:
  // Connected and authenticated. Statuses of StreamSocket::Connect; PermissionDenied: user or password are refused.
  static absl::StatusOr<std::unique_ptr<RespConnection>> Connect(const RespEndpoint& endpoint, const RespLogin& login,
                                                                 absl::Time deadline);

  // Begins an exchange. Only when the last one is over and status() is OK.
  void Start(std::vector<RespCommand> commands);
  // Until every one of `connections` has all of its replies or has failed, or the deadline has passed.
  static void Exchange(absl::Span<RespConnection* const> connections, absl::Time deadline);
  // Of the last exchange, in the order of the commands: all of them when status() is OK, else those that came.
  std::vector<RespReply>& replies() { return replies_; }
  // OK, or why the connection is of no more use: Unavailable, DeadlineExceeded, DataLoss (not RESP), ResourceExhausted
  // (a reply past the limits).
  const absl::Status& status() const { return status_; }

  // Start and Exchange of one command alone.
  absl::StatusOr<RespReply> Call(absl::Span<const std::string_view> arguments, absl::Time deadline);

  const RespEndpoint& endpoint() const { return endpoint_; }

 private:
  RespConnection(const RespEndpoint& endpoint, std::unique_ptr<StreamSocket> socket);
  bool Done() const { return !status_.ok() || replies_.size() == commands_.size(); }
  bool Unsent() const { return first_unsent_ < commands_.size(); }
  // Writes and reads what is possible now. Returns whether anything went through.
  bool Advance();
  absl::StatusOr<bool> Write();
  absl::StatusOr<bool> Read();

  const RespEndpoint endpoint_;
  const std::unique_ptr<StreamSocket> socket_;
  RespReader reader_;
  std::vector<char> received_;
  std::vector<RespCommand> commands_;
  size_t first_unsent_ = 0;  // index into commands_
  size_t sent_bytes_ = 0;    // of that one
  std::vector<RespReply> replies_;
  absl::Status status_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_RESP_CONNECTION_H_
