#include "client/http/http_server.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <chrono>
#include <map>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "client/http/http_connection.h"

namespace tidepool::http {
namespace {

namespace net = boost::asio;
using Error = boost::system::error_code;
using Protocol = net::generic::stream_protocol;

constexpr std::chrono::milliseconds kAcceptRetry{100};  // when there are no descriptors left, for example

absl::Status CheckOptions(const HttpServerOptions& options) {
  if (options.threads < 1 || options.threads > 64) {
    return absl::InvalidArgumentError(absl::StrCat("threads: ", options.threads, " is not in 1 to 64"));
  }
  if (options.max_connections < 1 || options.max_connections > 65'536) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_connections: ", options.max_connections, " is not in 1 to 65536"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Protocol::endpoint> EndpointOf(const std::string& listen) {
  if (absl::StartsWith(listen, "unix:")) {
    const std::string path = listen.substr(5);
    if (path.size() >= sizeof(sockaddr_un{}.sun_path)) {
      return absl::InvalidArgumentError(absl::StrCat("listen: ", path, " is too long for a socket's path"));
    }
    struct stat found {};
    if (lstat(path.c_str(), &found) == 0 && S_ISSOCK(found.st_mode)) unlink(path.c_str());  // of a process that died
    return Protocol::endpoint(net::local::stream_protocol::endpoint(path));
  }
  const size_t colon = listen.rfind(':');
  if (colon == std::string::npos) return absl::InvalidArgumentError(absl::StrCat("listen: ", listen, " has no port"));
  std::string host = listen.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  net::io_context io;
  Error error;
  const auto found = net::ip::tcp::resolver(io).resolve(host, listen.substr(colon + 1), error);
  if (error || found.empty()) return absl::UnavailableError(absl::StrCat("listen: ", listen, ": ", error.message()));
  return Protocol::endpoint(found.begin()->endpoint());
}

int PortOf(const Protocol::endpoint& endpoint) {
  const sockaddr* address = endpoint.data();
  if (address->sa_family == AF_INET) return ntohs(reinterpret_cast<const sockaddr_in*>(address)->sin_port);
  if (address->sa_family == AF_INET6) return ntohs(reinterpret_cast<const sockaddr_in6*>(address)->sin6_port);
  return 0;
}

// Events go out at once; a peer that vanished without a word is noticed within a minute.
void SetTcpOptions(Socket& socket) {
  const int fd = socket.native_handle();
  const auto set = [fd](int level, int option, int value) { setsockopt(fd, level, option, &value, sizeof value); };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 30);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 10);
  set(IPPROTO_TCP, TCP_KEEPCNT, 3);
}

}  // namespace

class HttpServer::Impl {
 public:
  explicit Impl(const HttpServerOptions& options, HttpService* service)
      : acceptor_(net::make_strand(io_)), retry_(acceptor_.get_executor()), work_(io_.get_executor()) {
    host_.options = options;
    host_.service = service;
    host_.on_end = [this] {
      MutexLock lock(&mutex_);
      --open_;
      changed_.SignalAll();
    };
  }

  absl::Status Listen() {
    const std::string& listen = host_.options.listen;
    TP_RETURN_IF_ERROR(CheckOptions(host_.options));
    TP_ASSIGN_OR_RETURN(const Protocol::endpoint endpoint, EndpointOf(listen));
    Error error;
    acceptor_.open(endpoint.protocol(), error);
    if (!error) acceptor_.set_option(net::socket_base::reuse_address(true), error);
    if (!error) acceptor_.bind(endpoint, error);
    if (!error) acceptor_.listen(net::socket_base::max_listen_connections, error);
    if (error) return absl::UnavailableError(absl::StrCat("listen: cannot listen on ", listen, ": ", error.message()));
    port_ = PortOf(acceptor_.local_endpoint(error));
    is_unix_ = absl::StartsWith(listen, "unix:");
    address_ = is_unix_ ? listen : absl::StrCat(listen.substr(0, listen.rfind(':')), ":", port_);
    net::post(acceptor_.get_executor(), [this] { AcceptNext(); });
    for (int i = 0; i < host_.options.threads; ++i) threads_.emplace_back([this] { io_.run(); });
    return absl::OkStatus();
  }

  void Shutdown(absl::Duration grace) {
    if (threads_.empty()) return;
    host_.draining = true;
    net::post(acceptor_.get_executor(), [this] {
      Error ignored;
      acceptor_.close(ignored);
      retry_.cancel();
      MutexLock lock(&mutex_);
      accepting_ = false;
      changed_.SignalAll();
    });
    {
      MutexLock lock(&mutex_);
      while (accepting_) changed_.Wait(&mutex_);
    }
    const auto deadline = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(grace);
    ForEach(&HttpConnection::Drain);
    if (!WaitUntilClosed(deadline)) {
      TP_LOG(Warning, "http", open_connections(), " connections are closed before their answers end");
    }
    ForEach(&HttpConnection::Stop);
    WaitUntilClosed(std::chrono::steady_clock::time_point::max());
    io_.stop();
    JoinThreads();
    if (is_unix_) unlink(host_.options.listen.substr(5).c_str());
  }

  const std::string& address() const { return address_; }
  int port() const { return port_; }
  int64_t open_connections() const {
    MutexLock lock(&mutex_);
    return open_;
  }

 private:
  void AcceptNext() {
    if (host_.draining) return;
    acceptor_.async_accept(net::make_strand(io_), [this](Error error, Socket socket) {
      if (error == net::error::operation_aborted) return;
      if (!error) {
        Take(std::move(socket));
        return AcceptNext();
      }
      TP_LOG(Warning, "http", "accept: ", error.message());
      retry_.expires_after(kAcceptRetry);
      retry_.async_wait([this](Error stopped) {
        if (!stopped) AcceptNext();
      });
    });
  }

  void Take(Socket socket) {
    if (!is_unix_) SetTcpOptions(socket);
    std::shared_ptr<HttpConnection> connection;
    {
      MutexLock lock(&mutex_);
      if (open_ >= host_.options.max_connections) {
        // Best effort: the socket is new, so this fits its buffer.
        static constexpr char kBusy[] =
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\n\r\n";
        send(socket.native_handle(), kBusy, sizeof kBusy - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
        return;
      }
      ++open_;
      connection = std::make_shared<HttpConnection>(std::move(socket), &host_);
      std::erase_if(connections_, [](const auto& entry) { return entry.expired(); });
      connections_.push_back(connection);
    }
    connection->Start();
  }

  // Without the mutex: what is let go here may be the last reference, whose end takes it.
  void ForEach(void (HttpConnection::*action)()) {
    std::vector<std::shared_ptr<HttpConnection>> open;
    {
      MutexLock lock(&mutex_);
      for (const auto& entry : connections_) open.push_back(entry.lock());
    }
    for (const auto& connection : open) {
      if (connection != nullptr) (connection.get()->*action)();
    }
  }

  bool WaitUntilClosed(std::chrono::steady_clock::time_point deadline) {
    MutexLock lock(&mutex_);
    while (open_ > 0) {
      if (!changed_.WaitUntil(&mutex_, deadline)) return open_ == 0;
    }
    return true;
  }

  void JoinThreads() {
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

  ConnectionHost host_;
  net::io_context io_;
  net::basic_socket_acceptor<Protocol, Strand> acceptor_;
  net::basic_waitable_timer<std::chrono::steady_clock, net::wait_traits<std::chrono::steady_clock>, Strand> retry_;
  net::executor_work_guard<net::io_context::executor_type> work_;
  std::vector<std::thread> threads_;
  std::string address_;
  int port_ = 0;
  bool is_unix_ = false;
  mutable Mutex mutex_;
  CondVar changed_;
  bool accepting_ ABSL_GUARDED_BY(mutex_) = true;
  int64_t open_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<std::weak_ptr<HttpConnection>> connections_ ABSL_GUARDED_BY(mutex_);
};

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpServer::~HttpServer() { Shutdown(absl::ZeroDuration()); }

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const HttpServerOptions& options, HttpService* service) {
  auto impl = std::make_unique<Impl>(options, service);
  TP_RETURN_IF_ERROR(impl->Listen());
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

const std::string& HttpServer::address() const { return impl_->address(); }
int HttpServer::port() const { return impl_->port(); }
int64_t HttpServer::open_connections() const { return impl_->open_connections(); }
void HttpServer::Shutdown(absl::Duration grace) { impl_->Shutdown(grace); }

}  // namespace tidepool::http
