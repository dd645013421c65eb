#include "cacheservice/resp/connection.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace tidepool {
namespace {

constexpr size_t kReceiveBytes = size_t{64} << 10;
constexpr size_t kPiecesAtOnce = 64;
constexpr size_t kReadsAtOnce = 16;  // before other connections and the deadline get their turn

absl::Status Named(const RespEndpoint& endpoint, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(endpoint.ToString(), ": ", status.message()));
}

}  // namespace

RespConnection::RespConnection(const RespEndpoint& endpoint, std::unique_ptr<StreamSocket> socket)
    : endpoint_(endpoint), socket_(std::move(socket)), received_(kReceiveBytes) {}

absl::StatusOr<std::unique_ptr<RespConnection>> RespConnection::Connect(const RespEndpoint& endpoint,
                                                                        const RespLogin& login, absl::Time deadline) {
  absl::StatusOr<std::unique_ptr<StreamSocket>> socket = StreamSocket::Connect(endpoint, login.tls, deadline);
  if (!socket.ok()) return Named(endpoint, socket.status());
  std::unique_ptr<RespConnection> connection(new RespConnection(endpoint, *std::move(socket)));
  if (login.password.empty()) return connection;
  std::vector<std::string_view> auth = {"AUTH"};
  if (!login.user.empty()) auth.push_back(login.user);
  auth.push_back(login.password);
  TP_ASSIGN_OR_RETURN(const RespReply reply, connection->Call(auth, deadline));
  if (reply.is(RespReply::Type::kStatus)) return connection;
  if (reply.IsError("LOADING") || reply.IsError("MASTERDOWN")) {
    return Named(endpoint, absl::UnavailableError(reply.text));
  }
  return Named(endpoint, absl::PermissionDeniedError(absl::StrCat("AUTH is refused: ", reply.text)));
}

void RespConnection::Start(std::vector<RespCommand> commands) {
  TIDEPOOL_CHECK(Done() && status_.ok());
  commands_ = std::move(commands);
  replies_.clear();
  replies_.reserve(commands_.size());
  first_unsent_ = sent_bytes_ = 0;
}

absl::StatusOr<bool> RespConnection::Write() {
  bool progress = false;
  while (Unsent()) {
    std::string_view pieces[kPiecesAtOnce];
    const size_t count = std::min(kPiecesAtOnce, commands_.size() - first_unsent_);
    for (size_t i = 0; i < count; ++i) pieces[i] = commands_[first_unsent_ + i].bytes();
    pieces[0].remove_prefix(sent_bytes_);
    TP_ASSIGN_OR_RETURN(size_t sent, socket_->TryWrite({pieces, count}));
    if (sent == 0) break;
    progress = true;
    for (size_t i = 0; i < count && sent > 0; ++i) {
      const size_t part = std::min(sent, pieces[i].size());
      sent -= part;
      sent_bytes_ = part == pieces[i].size() ? 0 : sent_bytes_ + part;
      if (part == pieces[i].size()) ++first_unsent_;
    }
  }
  return progress;
}

absl::StatusOr<bool> RespConnection::Read() {
  bool progress = false;
  for (size_t reads = 0; reads < kReadsAtOnce && !Done(); ++reads) {
    TP_ASSIGN_OR_RETURN(const size_t size, socket_->TryRead(received_.data(), received_.size()));
    if (size == 0) break;
    progress = true;
    TP_RETURN_IF_ERROR(reader_.Feed({received_.data(), size}));
    while (true) {
      TP_ASSIGN_OR_RETURN(std::optional<RespReply> reply, reader_.Next());
      if (!reply.has_value()) break;
      if (replies_.size() == commands_.size()) return absl::DataLossError("a reply that nobody asked for");
      replies_.push_back(*std::move(reply));
    }
  }
  return progress;
}

bool RespConnection::Advance() {
  bool progress = false;
  for (const auto step : {&RespConnection::Write, &RespConnection::Read}) {
    if (Done()) break;
    const absl::StatusOr<bool> moved = (this->*step)();
    if (!moved.ok()) {
      status_ = Named(endpoint_, moved.status());
      break;
    }
    progress = progress || *moved;
  }
  return progress;
}

void RespConnection::Exchange(absl::Span<RespConnection* const> connections, absl::Time deadline) {
  while (true) {
    bool progress = false;
    std::vector<StreamSocket*> readers, writers;
    for (RespConnection* connection : connections) {
      if (connection->Done()) continue;
      progress = connection->Advance() || progress;
      if (connection->Done()) continue;
      readers.push_back(connection->socket_.get());
      if (connection->Unsent()) writers.push_back(connection->socket_.get());
    }
    if (readers.empty()) return;
    if (absl::Now() >= deadline) break;
    if (!progress) WaitForSockets(readers, writers, deadline);
  }
  for (RespConnection* connection : connections) {
    if (connection->Done()) continue;
    connection->status_ =
        Named(connection->endpoint_,
              absl::DeadlineExceededError(absl::StrCat(connection->replies_.size(), " of ",
                                                       connection->commands_.size(), " replies came in time")));
  }
}

absl::StatusOr<RespReply> RespConnection::Call(absl::Span<const std::string_view> arguments, absl::Time deadline) {
  std::vector<RespCommand> commands;
  commands.emplace_back(arguments);
  Start(std::move(commands));
  RespConnection* const self = this;
  Exchange({&self, 1}, deadline);
  TP_RETURN_IF_ERROR(status_);
  return std::move(replies_[0]);
}

}  // namespace tidepool
