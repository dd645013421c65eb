#include "cacheservice/resp/stream_socket.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"

namespace tidepool {
namespace {

constexpr size_t kMostPieces = 64;             // of one system call
constexpr size_t kTlsRecordBytes = 16 * 1024;  // the largest record
constexpr int64_t kMostPollMs = 60'000;

absl::Status Broken(const char* what, int error) {
  return absl::UnavailableError(absl::StrCat(what, ": ", std::strerror(error)));
}

int PollTimeoutMs(absl::Time deadline) {
  const absl::Duration left = deadline - absl::Now();
  if (left <= absl::ZeroDuration()) return 0;
  // Rounded up: a wait that ends early would spin until the deadline.
  return static_cast<int>(std::min(absl::ToInt64Milliseconds(left), kMostPollMs - 1) + 1);
}

absl::StatusOr<SocketAddress> UnixAddress(const std::string& path) {
  SocketAddress address;
  auto* name = reinterpret_cast<sockaddr_un*>(&address.storage);
  if (path.size() >= sizeof name->sun_path) return absl::InvalidArgumentError("the path of a Unix socket is too long");
  name->sun_family = AF_UNIX;
  std::memcpy(name->sun_path, path.data(), path.size());
  address.size = sizeof *name;
  return address;
}

// The certificate must be for `host`, a name or an address.
bool RequireHost(SSL* ssl, const std::string& host) {
  in6_addr address;
  const bool is_address =
      inet_pton(AF_INET, host.c_str(), &address) == 1 || inet_pton(AF_INET6, host.c_str(), &address) == 1;
  if (is_address) return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host.c_str()) == 1;
  return SSL_set1_host(ssl, host.c_str()) == 1 && SSL_set_tlsext_host_name(ssl, host.c_str()) == 1;
}

int SendWithoutSignal(BIO* bio, const char* bytes, int size) {
  int fd = -1;
  BIO_get_fd(bio, &fd);
  BIO_clear_retry_flags(bio);
  const ssize_t result = send(fd, bytes, static_cast<size_t>(size), MSG_NOSIGNAL);
  if (result < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) BIO_set_retry_write(bio);
  return static_cast<int>(result);
}

// OpenSSL's socket but for its write, which raises SIGPIPE when the server is gone. Never freed.
const BIO_METHOD* QuietSocket() {
  static const BIO_METHOD* const method = [] {
    const BIO_METHOD* const socket = BIO_s_socket();
    BIO_METHOD* quiet = BIO_meth_new(BIO_TYPE_SOCKET, "socket without SIGPIPE");
    if (quiet == nullptr) return socket;
    BIO_meth_set_write(quiet, SendWithoutSignal);
    BIO_meth_set_read(quiet, BIO_meth_get_read(socket));
    BIO_meth_set_puts(quiet, BIO_meth_get_puts(socket));
    BIO_meth_set_ctrl(quiet, BIO_meth_get_ctrl(socket));
    BIO_meth_set_create(quiet, BIO_meth_get_create(socket));
    BIO_meth_set_destroy(quiet, BIO_meth_get_destroy(socket));
    return static_cast<const BIO_METHOD*>(quiet);
  }();
  return method;
}

}  // namespace

StreamSocket::~StreamSocket() {
  SSL_free(ssl_);
  close(fd_);
}

absl::StatusOr<std::unique_ptr<StreamSocket>> StreamSocket::ConnectTo(const SocketAddress& address,
                                                                      std::shared_ptr<const RespTlsContext> tls,
                                                                      absl::Time deadline) {
  const int fd = socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return Broken("socket", errno);
  std::unique_ptr<StreamSocket> stream(new StreamSocket(fd, std::move(tls)));
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address.storage), address.size) != 0) {
    if (errno != EINPROGRESS && errno != EINTR) return Broken("connect", errno);
    pollfd waiting = {.fd = fd, .events = POLLOUT, .revents = 0};
    while (waiting.revents == 0) {
      if (absl::Now() >= deadline) return absl::DeadlineExceededError("connect: no answer in time");
      poll(&waiting, 1, PollTimeoutMs(deadline));
    }
    int error = 0;
    socklen_t size = sizeof error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
    if (error != 0) return Broken("connect", error);
  }
  const int on = 1;
  if (address.storage.ss_family != AF_UNIX) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return stream;
}

absl::StatusOr<std::unique_ptr<StreamSocket>> StreamSocket::Connect(const RespEndpoint& endpoint,
                                                                    std::shared_ptr<const RespTlsContext> tls,
                                                                    absl::Time deadline) {
  deadline = std::min(deadline, absl::Now() + absl::Milliseconds(kMostPollMs));
  std::vector<SocketAddress> addresses;
  if (endpoint.port == 0) {
    TP_ASSIGN_OR_RETURN(addresses.emplace_back(), UnixAddress(endpoint.host));
  } else {
    TP_ASSIGN_OR_RETURN(addresses, ResolveHost(endpoint.host, endpoint.port, deadline));
  }
  absl::Status failure;
  for (const SocketAddress& address : addresses) {
    absl::StatusOr<std::unique_ptr<StreamSocket>> stream = ConnectTo(address, tls, deadline);
    if (!stream.ok()) {
      failure = stream.status();
      continue;
    }
    if (tls != nullptr) TP_RETURN_IF_ERROR((*stream)->Handshake(endpoint, deadline));
    return stream;
  }
  return failure;
}

absl::Status StreamSocket::Handshake(const RespEndpoint& endpoint, absl::Time deadline) {
  ERR_clear_error();
  ssl_ = SSL_new(tls_->get());
  const std::string& host = tls_->server_name().empty() ? endpoint.host : tls_->server_name();
  BIO* bio = ssl_ == nullptr ? nullptr : BIO_new(QuietSocket());
  if (bio == nullptr) return absl::InternalError(absl::StrCat("TLS: ", LastTlsError()));
  BIO_set_fd(bio, fd_, BIO_NOCLOSE);
  SSL_set_bio(ssl_, bio, bio);
  if (!RequireHost(ssl_, host)) return absl::InternalError(absl::StrCat("TLS: host '", host, "': ", LastTlsError()));
  while (true) {
    ERR_clear_error();
    const int result = SSL_connect(ssl_);
    if (result == 1) return absl::OkStatus();
    const int error = SSL_get_error(ssl_, result);
    if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) {
      if (const int64_t verified = SSL_get_verify_result(ssl_); verified != X509_V_OK) {
        return absl::PermissionDeniedError(
            absl::StrCat("TLS: the server's certificate is refused: ", X509_verify_cert_error_string(verified)));
      }
      if (error == SSL_ERROR_SYSCALL) return absl::UnavailableError("TLS: the server ended the connection");
      return absl::PermissionDeniedError(absl::StrCat("TLS: ", LastTlsError()));
    }
    if (absl::Now() >= deadline) return absl::DeadlineExceededError("TLS: no answer in time");
    pollfd waiting = {.fd = fd_, .events = error == SSL_ERROR_WANT_READ ? short{POLLIN} : short{POLLOUT}, .revents = 0};
    poll(&waiting, 1, PollTimeoutMs(deadline));
  }
}

absl::StatusOr<size_t> StreamSocket::TlsResult(int result, const char* what) {
  if (result > 0) return static_cast<size_t>(result);
  switch (SSL_get_error(ssl_, result)) {
    case SSL_ERROR_WANT_WRITE: wants_write_ = true; return size_t{0};
    case SSL_ERROR_WANT_READ: return size_t{0};
    case SSL_ERROR_ZERO_RETURN: return absl::UnavailableError("the server ended the connection");
    case SSL_ERROR_SYSCALL: return absl::UnavailableError(absl::StrCat(what, ": the connection is broken"));
    default: return absl::UnavailableError(absl::StrCat(what, ": TLS: ", LastTlsError()));
  }
}

absl::StatusOr<size_t> StreamSocket::TryRead(char* bytes, size_t size) {
  if (ssl_ != nullptr) {
    ERR_clear_error();
    wants_write_ = false;
    return TlsResult(SSL_read(ssl_, bytes, static_cast<int>(size)), "read");
  }
  while (true) {
    const ssize_t result = recv(fd_, bytes, size, 0);
    if (result > 0) return static_cast<size_t>(result);
    if (result == 0) return absl::UnavailableError("the server ended the connection");
    if (errno == EAGAIN || errno == EWOULDBLOCK) return size_t{0};
    if (errno != EINTR) return Broken("read", errno);
  }
}

absl::StatusOr<size_t> StreamSocket::TryWrite(absl::Span<const std::string_view> pieces) {
  return ssl_ != nullptr ? TryWriteTls(pieces) : TryWritePlain(pieces);
}

absl::StatusOr<size_t> StreamSocket::TryWritePlain(absl::Span<const std::string_view> pieces) {
  iovec vectors[kMostPieces];
  const size_t count = std::min(pieces.size(), kMostPieces);
  for (size_t i = 0; i < count; ++i) {
    vectors[i] = {.iov_base = const_cast<char*>(pieces[i].data()), .iov_len = pieces[i].size()};
  }
  msghdr message{};
  message.msg_iov = vectors;
  message.msg_iovlen = count;
  while (true) {
    const ssize_t result = sendmsg(fd_, &message, MSG_NOSIGNAL);
    if (result >= 0) return static_cast<size_t>(result);
    if (errno == EAGAIN || errno == EWOULDBLOCK) return size_t{0};
    if (errno != EINTR) return Broken("write", errno);
  }
}

absl::StatusOr<size_t> StreamSocket::TryWriteTls(absl::Span<const std::string_view> pieces) {
  // A write that could not go through must be tried again with the same bytes: the same pieces give the same record.
  tls_record_.clear();
  for (const std::string_view piece : pieces) {
    const size_t size = std::min(piece.size(), kTlsRecordBytes - tls_record_.size());
    tls_record_.insert(tls_record_.end(), piece.begin(), piece.begin() + static_cast<ptrdiff_t>(size));
    if (tls_record_.size() == kTlsRecordBytes) break;
  }
  if (tls_record_.empty()) return size_t{0};
  ERR_clear_error();
  return TlsResult(SSL_write(ssl_, tls_record_.data(), static_cast<int>(tls_record_.size())), "write");
}

void WaitForSockets(absl::Span<StreamSocket* const> readers, absl::Span<StreamSocket* const> writers,
                    absl::Time deadline) {
  std::vector<pollfd> waiting;
  for (const StreamSocket* socket : readers) {
    const int events = POLLIN | (socket->wants_write_ ? POLLOUT : 0);
    waiting.push_back({.fd = socket->fd_, .events = static_cast<short>(events), .revents = 0});
  }
  for (const StreamSocket* socket : writers) waiting.push_back({.fd = socket->fd_, .events = POLLOUT, .revents = 0});
  poll(waiting.data(), waiting.size(), PollTimeoutMs(deadline));
}

}  // namespace tidepool
