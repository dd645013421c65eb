#include "metrics/page_server.h"

#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <deque>
#include <string_view>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace tidepool {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kMostConnections = 16;
constexpr size_t kMostRequestBytes = 8 << 10;
constexpr std::chrono::seconds kPatience{5};

// A file descriptor that is closed with its owner.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int fd() const { return fd_; }

 private:
  int fd_;
};

struct Connection {
  Descriptor socket;
  Clock::time_point give_up;
  std::string request;
  std::string answer;  // not empty: the request is in
  size_t sent = 0;
};

absl::Status CannotListen(const std::string& address, const char* why) {
  return absl::UnavailableError(absl::StrCat("cannot listen on ", address, ": ", why));
}

absl::StatusOr<Descriptor> Listen(const std::string& address) {
  const size_t colon = address.rfind(':');
  std::string host = address.substr(0, colon);
  if (host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  addrinfo hints = {}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  if (const int error = getaddrinfo(host.c_str(), address.c_str() + colon + 1, &hints, &found); error != 0) {
    return CannotListen(address, gai_strerror(error));
  }
  Descriptor socket(::socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const int on = 1;
  const bool listens = socket.fd() >= 0 && setsockopt(socket.fd(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
                       bind(socket.fd(), found->ai_addr, found->ai_addrlen) == 0 && listen(socket.fd(), 64) == 0;
  const int error = errno;
  freeaddrinfo(found);
  if (!listens) return CannotListen(address, std::strerror(error));
  return socket;
}

int PortOf(const Descriptor& socket) {
  sockaddr_storage name = {};
  socklen_t size = sizeof name;
  char port[8] = "0";
  if (getsockname(socket.fd(), reinterpret_cast<sockaddr*>(&name), &size) != 0) return 0;
  getnameinfo(reinterpret_cast<sockaddr*>(&name), size, nullptr, 0, port, sizeof port, NI_NUMERICSERV);
  return std::atoi(port);
}

std::string Answer(std::string_view status, std::string_view type, std::string_view body) {
  const auto view = [](std::string_view text) { return absl::string_view(text.data(), text.size()); };
  return absl::StrCat("HTTP/1.1 ", view(status), "\r\nContent-Type: ", view(type), "\r\nContent-Length: ", body.size(),
                      "\r\nConnection: close\r\n\r\n", view(body));
}

std::string Refusal(std::string_view status) { return Answer(status, "text/plain", std::string(status) + "\n"); }

}  // namespace

class PageServer::Impl {
 public:
  Impl(Descriptor listener, std::string address, std::map<std::string, Page> pages)
      : listener_(std::move(listener)), address_(std::move(address)), pages_(std::move(pages)) {}
  ~Impl() {
    const uint64_t one = 1;
    if (write(stop_.fd(), &one, sizeof one) == sizeof one) thread_.join();
  }

  absl::Status Start() {
    if (stop_.fd() < 0) return CannotListen(address_, "no event descriptor");
    thread_ = std::thread([this] { Run(); });
    return absl::OkStatus();
  }
  const std::string& address() const { return address_; }

 private:
  void Run();
  void Accept();
  // False: the connection is done with.
  bool Serve(Connection& connection) const;
  std::string AnswerTo(std::string_view request) const;

  const Descriptor listener_;
  const Descriptor stop_{eventfd(0, EFD_CLOEXEC)};
  const std::string address_;
  const std::map<std::string, Page> pages_;
  std::deque<Connection> connections_;  // of the thread; the oldest first
  std::thread thread_;
};

void PageServer::Impl::Run() {
  for (;;) {
    std::vector<pollfd> polled = {{stop_.fd(), POLLIN, 0}, {listener_.fd(), POLLIN, 0}};
    for (const Connection& connection : connections_) {
      const short wanted = connection.answer.empty() ? POLLIN : POLLOUT;
      polled.push_back({connection.socket.fd(), wanted, 0});
    }
    int wait_ms = -1;
    if (!connections_.empty()) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(connections_.front().give_up - Clock::now());
      wait_ms = static_cast<int>(std::max<int64_t>(left.count(), 0));
    }
    if (poll(polled.data(), polled.size(), wait_ms) < 0 && errno != EINTR) return;
    if (polled[0].revents != 0) return;
    const Clock::time_point now = Clock::now();
    size_t i = 2;
    std::erase_if(connections_, [&](Connection& connection) {
      const bool ready = polled[i++].revents != 0;
      return (ready && !Serve(connection)) || connection.give_up <= now;
    });
    if (polled[1].revents != 0) Accept();
  }
}

void PageServer::Impl::Accept() {
  Descriptor socket(accept4(listener_.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (socket.fd() < 0) {
    // Without a free descriptor the same connection would be offered again at once.
    if (errno == EMFILE || errno == ENFILE) std::this_thread::sleep_for(std::chrono::milliseconds(100));
    return;
  }
  if (connections_.size() == kMostConnections) connections_.pop_front();
  connections_.push_back({.socket = std::move(socket), .give_up = Clock::now() + kPatience});
}

bool PageServer::Impl::Serve(Connection& connection) const {
  const int fd = connection.socket.fd();
  if (connection.answer.empty()) {
    char buffer[2048];
    const ssize_t got = recv(fd, buffer, sizeof buffer, 0);
    if (got <= 0) return got < 0 && (errno == EAGAIN || errno == EINTR);
    connection.request.append(buffer, static_cast<size_t>(got));
    if (connection.request.find("\r\n\r\n") != std::string::npos) {
      connection.answer = AnswerTo(connection.request);
    } else if (connection.request.size() > kMostRequestBytes) {
      connection.answer = Refusal("431 Request Header Fields Too Large");
    } else {
      return true;
    }
  }
  const std::string_view rest = std::string_view(connection.answer).substr(connection.sent);
  const ssize_t sent = send(fd, rest.data(), rest.size(), MSG_NOSIGNAL);
  if (sent < 0) return errno == EAGAIN || errno == EINTR;
  connection.sent += static_cast<size_t>(sent);
  if (connection.sent < connection.answer.size()) return true;
  shutdown(fd, SHUT_WR);
  return false;
}

std::string PageServer::Impl::AnswerTo(std::string_view request) const {
  const std::string_view line = request.substr(0, request.find("\r\n"));
  const size_t first = line.find(' '), last = line.rfind(' ');
  if (first == std::string_view::npos || first == last || line.substr(last + 1, 5) != "HTTP/") {
    return Refusal("400 Bad Request");
  }
  const std::string_view method = line.substr(0, first), target = line.substr(first + 1, last - first - 1);
  const auto page = pages_.find(std::string(target.substr(0, target.find('?'))));
  if (page == pages_.end()) return Refusal("404 Not Found");
  if (method != "GET") return Refusal("405 Method Not Allowed");
  return Answer("200 OK", page->second.content_type, page->second.text());
}

PageServer::PageServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
PageServer::~PageServer() = default;

absl::StatusOr<std::unique_ptr<PageServer>> PageServer::Start(const std::string& address,
                                                              std::map<std::string, Page> pages) {
  TP_ASSIGN_OR_RETURN(Descriptor listener, Listen(address));
  const std::string taken = absl::StrCat(address.substr(0, address.rfind(':')), ":", PortOf(listener));
  auto impl = std::make_unique<Impl>(std::move(listener), taken, std::move(pages));
  TP_RETURN_IF_ERROR(impl->Start());
  return std::unique_ptr<PageServer>(new PageServer(std::move(impl)));
}

const std::string& PageServer::address() const { return impl_->address(); }

}  // namespace tidepool
