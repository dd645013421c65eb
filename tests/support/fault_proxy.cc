#include "tests/support/fault_proxy.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <stdexcept>
#include <vector>

namespace tidepool::test {
namespace {

constexpr size_t kPieceBytes = 64 << 10;
// Of one direction of one connection, beside what waits because of a delay.
constexpr size_t kQueueBytes = 256 << 10;
constexpr size_t kDelayedBytes = 8 << 20;
// A throttled link sends in bursts of so long at most, so that it is slow and not merely late.
constexpr double kBurstSeconds = 0.02;

[[noreturn]] void Fail(const std::string& what) {
  throw std::runtime_error("fault proxy: " + what + ": " + std::strerror(errno));
}

sockaddr_in Address(const std::string& host, int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  if (inet_pton(AF_INET, host.c_str(), &address.sin_addr) != 1) {
    throw std::runtime_error("fault proxy: '" + host + "' is no IPv4 address");
  }
  return address;
}

// Bound to the port of 127.0.0.1 (0: any free one), which two sockets may share while at most one listens.
int Bind(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) Fail("socket");
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  const sockaddr_in address = Address("127.0.0.1", port);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    close(fd);
    Fail("bind to port " + std::to_string(port));
  }
  return fd;
}

void Prepare(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  // Small, so that a throttle is felt by who writes and not hidden in the kernel.
  const int bytes = kQueueBytes;
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
  setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

void Reset(int fd) {
  const linger now = {.l_onoff = 1, .l_linger = 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
  close(fd);
}

}  // namespace

struct FaultProxy::Pipe {
  struct Piece {
    Clock::time_point due;
    std::string bytes;
    size_t sent = 0;
  };
  int from = -1, to = -1;
  int direction = 0;  // index into allowance_
  std::deque<Piece> pieces;
  size_t queued = 0;
  bool ended = false;        // nothing more will be read
  bool shut = false;         // `to` has been told
  bool discard = false;      // what is read is thrown away
  bool full_socket = false;  // `to` took no more
};

struct FaultProxy::Connection {
  Pipe up, down;
  int client = -1, server = -1;
  bool connected = false;
};

FaultProxy::FaultProxy(const std::string& target, uint64_t seed)
    : target_host_(target.substr(0, target.rfind(':'))),
      target_port_(std::stoi(target.substr(target.rfind(':') + 1))),
      random_(seed) {
  Address(target_host_, target_port_);
  place_holder_ = Bind(0);
  sockaddr_in address{};
  socklen_t size = sizeof(address);
  getsockname(place_holder_, reinterpret_cast<sockaddr*>(&address), &size);
  port_ = ntohs(address.sin_port);
  wake_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (wake_ < 0) Fail("eventfd");
  Set(Faults());
  thread_ = std::thread([this] { Run(); });
}

FaultProxy::~FaultProxy() {
  {
    MutexLock lock(&mutex_);
    stop_ = true;
  }
  Wake();
  thread_.join();
  Drop();
  MutexLock lock(&mutex_);
  if (listener_ >= 0) close(listener_);
  close(place_holder_);
  close(wake_);
}

void FaultProxy::Wake() { eventfd_write(wake_, 1); }

void FaultProxy::Set(const Faults& faults) {
  {
    MutexLock lock(&mutex_);
    faults_ = faults;
    if (faults.refuse && listener_ >= 0) {
      shutdown(listener_, SHUT_RD);  // at once: a poll under way keeps what is merely closed
      close(listener_);
      listener_ = -1;
    } else if (!faults.refuse && listener_ < 0) {
      listener_ = Bind(port_);
      if (listen(listener_, 128) != 0) Fail("listen");
    }
    for (Allowance& allowance : allowance_) allowance = {.bytes = 0, .filled = Clock::now()};
  }
  Wake();
}

void FaultProxy::Drop() {
  {
    MutexLock lock(&mutex_);
    for (Connection& connection : connections_) {
      Reset(connection.client);
      Reset(connection.server);
    }
    connections_.clear();
    counters_.open = 0;
  }
  Wake();
}

void FaultProxy::HalfClose() {
  {
    MutexLock lock(&mutex_);
    for (Connection& connection : connections_) {
      Pipe& up = connection.up;
      if (up.discard) continue;
      up.discard = true;
      up.pieces.clear();
      up.queued = 0;
      if (!up.shut) shutdown(up.to, SHUT_WR);
      up.shut = true;
    }
  }
  Wake();
}

FaultProxy::Counters FaultProxy::counters() const {
  MutexLock lock(&mutex_);
  return counters_;
}

void FaultProxy::Accept() {
  for (;;) {
    const int client = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (client < 0) return;
    ++counters_.connections;
    const int server = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (server < 0) {
      Reset(client);
      continue;
    }
    Prepare(client);
    Prepare(server);
    const sockaddr_in address = Address(target_host_, target_port_);
    if (connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 && errno != EINPROGRESS) {
      close(server);
      Reset(client);
      continue;
    }
    Connection& connection = connections_.emplace_back();
    connection.client = client;
    connection.server = server;
    connection.up.from = connection.down.to = client;
    connection.up.to = connection.down.from = server;
    connection.down.direction = 1;
    ++counters_.open;
  }
}

void FaultProxy::Refill(Clock::time_point now) {
  if (faults_.bytes_per_second <= 0) return;
  const auto rate = static_cast<double>(faults_.bytes_per_second);
  for (Allowance& allowance : allowance_) {
    const double seconds = std::chrono::duration<double>(now - allowance.filled).count();
    allowance.filled = now;
    allowance.bytes = std::min(allowance.bytes + seconds * rate, std::max(1.0, rate * kBurstSeconds));
  }
}

bool FaultProxy::Read(Pipe& pipe, Clock::time_point now) {
  const bool delayed = faults_.delay.count() > 0 || faults_.jitter.count() > 0;
  while (!pipe.ended && (pipe.discard || pipe.queued < (delayed ? kDelayedBytes : kQueueBytes))) {
    std::string bytes(kPieceBytes, '\0');
    const ssize_t got = recv(pipe.from, bytes.data(), bytes.size(), 0);
    if (got < 0) return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
    if (got == 0) {
      pipe.ended = true;
      break;
    }
    if (pipe.discard) continue;
    bytes.resize(static_cast<size_t>(got));
    Clock::time_point due = now + faults_.delay;
    if (faults_.jitter.count() > 0) {
      due += std::chrono::milliseconds(random_() % static_cast<uint64_t>(faults_.jitter.count() + 1));
    }
    if (!pipe.pieces.empty()) due = std::max(due, pipe.pieces.back().due);
    pipe.queued += bytes.size();
    pipe.pieces.push_back({due, std::move(bytes)});
  }
  return true;
}

bool FaultProxy::Write(Pipe& pipe, Clock::time_point now) {
  pipe.full_socket = false;
  while (!pipe.pieces.empty() && pipe.pieces.front().due <= now) {
    Pipe::Piece& piece = pipe.pieces.front();
    size_t most = piece.bytes.size() - piece.sent;
    if (faults_.bytes_per_second > 0) {
      most = std::min(most, static_cast<size_t>(std::max(0.0, allowance_[pipe.direction].bytes)));
      if (most == 0) return true;
    }
    const ssize_t sent = send(pipe.to, piece.bytes.data() + piece.sent, most, MSG_NOSIGNAL);
    if (sent < 0) {
      pipe.full_socket = errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
      return pipe.full_socket;
    }
    piece.sent += static_cast<size_t>(sent);
    pipe.queued -= static_cast<size_t>(sent);
    allowance_[pipe.direction].bytes -= static_cast<double>(sent);
    (pipe.direction == 0 ? counters_.bytes_to_server : counters_.bytes_to_client) += sent;
    if (piece.sent == piece.bytes.size()) pipe.pieces.pop_front();
  }
  if (pipe.pieces.empty() && pipe.ended && !pipe.shut) {
    pipe.shut = true;
    shutdown(pipe.to, SHUT_WR);
  }
  return true;
}

FaultProxy::State FaultProxy::Move(Connection& connection, Clock::time_point now) {
  if (!connection.connected) {
    int error = 0;
    socklen_t size = sizeof(error);
    pollfd ready = {.fd = connection.server, .events = POLLOUT, .revents = 0};
    if (poll(&ready, 1, 0) == 0) return State::kGoesOn;
    getsockopt(connection.server, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) return State::kBroken;
    connection.connected = true;
  }
  if (faults_.blackhole) return State::kGoesOn;
  for (Pipe* pipe : {&connection.up, &connection.down}) {
    if (!Read(*pipe, now) || !Write(*pipe, now)) return State::kBroken;
  }
  const bool up_over = connection.up.ended && (connection.up.shut || connection.up.discard);
  return up_over && connection.down.ended && connection.down.shut ? State::kOver : State::kGoesOn;
}

FaultProxy::Clock::time_point FaultProxy::NextWrite(const Pipe& pipe) const {
  if (pipe.pieces.empty() || pipe.full_socket) return Clock::time_point::max();
  Clock::time_point next = pipe.pieces.front().due;
  if (faults_.bytes_per_second > 0) {
    const Allowance& allowance = allowance_[pipe.direction];
    const double lacking = std::max(0.0, 1.0 - allowance.bytes) / static_cast<double>(faults_.bytes_per_second);
    next = std::max(next, allowance.filled + std::chrono::microseconds(static_cast<int64_t>(lacking * 1e6) + 1000));
  }
  return next;
}

void FaultProxy::Run() {
  for (;;) {
    std::vector<pollfd> polled;
    Clock::time_point next = Clock::time_point::max();
    {
      MutexLock lock(&mutex_);
      if (stop_) return;
      polled.push_back({wake_, POLLIN, 0});
      if (listener_ >= 0) polled.push_back({listener_, POLLIN, 0});
      const bool delayed = faults_.delay.count() > 0 || faults_.jitter.count() > 0;
      for (const Connection& connection : connections_) {
        if (!connection.connected) {
          polled.push_back({connection.server, POLLOUT, 0});
          continue;
        }
        if (faults_.blackhole) continue;
        for (const Pipe* pipe : {&connection.up, &connection.down}) {
          if (!pipe->ended && (pipe->discard || pipe->queued < (delayed ? kDelayedBytes : kQueueBytes))) {
            polled.push_back({pipe->from, POLLIN, 0});
          }
          if (pipe->full_socket) polled.push_back({pipe->to, POLLOUT, 0});
          next = std::min(next, NextWrite(*pipe));
        }
      }
    }
    int timeout_ms = -1;
    if (next != Clock::time_point::max()) {
      const auto wait = std::chrono::ceil<std::chrono::milliseconds>(next - Clock::now()).count();
      timeout_ms = static_cast<int>(std::max<int64_t>(0, wait));
    }
    poll(polled.data(), polled.size(), timeout_ms);
    eventfd_t ignored = 0;
    eventfd_read(wake_, &ignored);
    MutexLock lock(&mutex_);
    const Clock::time_point now = Clock::now();
    if (listener_ >= 0) Accept();
    Refill(now);
    for (auto at = connections_.begin(); at != connections_.end();) {
      const State state = Move(*at, now);
      if (state == State::kGoesOn) {
        ++at;
        continue;
      }
      for (int fd : {at->client, at->server}) {
        if (state == State::kOver) {
          close(fd);
        } else {
          Reset(fd);
        }
      }
      at = connections_.erase(at);
      --counters_.open;
    }
  }
}

}  // namespace tidepool::test
