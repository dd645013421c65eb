#include "tests/reliability/flipping_proxy.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <stdexcept>
#include <string_view>
#include <utility>

namespace tidepool::test {
namespace {

sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

int NewSocket() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) throw std::runtime_error("socket");
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return fd;
}

}  // namespace

FlippingProxy::FlippingProxy(int port) : target_port_(port), listener_(NewSocket()) {
  sockaddr_in address = Loopback(0);
  socklen_t size = sizeof address;
  if (bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(listener_, 16) != 0 ||
      getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    throw std::runtime_error("FlippingProxy cannot listen");
  }
  port_ = ntohs(address.sin_port);
  acceptor_ = std::thread([this] { Accept(); });
}

FlippingProxy::~FlippingProxy() {
  {
    MutexLock lock(&mutex_);
    closing_ = true;
    for (const int fd : sockets_) shutdown(fd, SHUT_RDWR);
  }
  shutdown(listener_, SHUT_RDWR);
  acceptor_.join();
  close(listener_);
  std::vector<std::thread> pumps;
  std::vector<int> sockets;
  {
    MutexLock lock(&mutex_);
    pumps.swap(pumps_);
    sockets.swap(sockets_);
  }
  for (std::thread& pump : pumps) pump.join();
  for (const int fd : sockets) close(fd);
}

void FlippingProxy::Arm(std::string bytes, size_t at, int bit) {
  MutexLock lock(&mutex_);
  wanted_ = std::move(bytes);
  at_ = at;
  bit_ = bit;
  flipped_ = false;
}

bool FlippingProxy::Disarm() {
  MutexLock lock(&mutex_);
  wanted_.clear();
  return flipped_;
}

void FlippingProxy::Accept() {
  while (true) {
    const int client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (client < 0) return;
    const int on = 1;
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    const int server = NewSocket();
    const sockaddr_in address = Loopback(target_port_);
    const bool connected = connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
    MutexLock lock(&mutex_);
    if (!connected || closing_) {
      close(client);
      close(server);
      continue;
    }
    sockets_.insert(sockets_.end(), {client, server});
    pumps_.emplace_back([this, client, server] { Pump(client, server); });
    pumps_.emplace_back([this, client, server] { Pump(server, client); });
  }
}

void FlippingProxy::Pump(int from, int to) {
  std::vector<char> buffer(size_t{1} << 20);
  while (true) {
    const ssize_t size = recv(from, buffer.data(), buffer.size(), 0);
    if (size <= 0) break;
    Flip(buffer.data(), static_cast<size_t>(size));
    for (ssize_t sent = 0; sent < size;) {
      const ssize_t more = send(to, buffer.data() + sent, static_cast<size_t>(size - sent), MSG_NOSIGNAL);
      if (more <= 0) {
        shutdown(from, SHUT_RDWR);
        return;
      }
      sent += more;
    }
  }
  shutdown(to, SHUT_RDWR);
}

void FlippingProxy::Flip(char* data, size_t size) {
  MutexLock lock(&mutex_);
  if (wanted_.empty() || flipped_) return;
  const size_t found = std::string_view(data, size).find(wanted_);
  if (found == std::string_view::npos) return;
  data[found + at_] = static_cast<char>(data[found + at_] ^ (1 << bit_));
  flipped_ = true;
}

}  // namespace tidepool::test
