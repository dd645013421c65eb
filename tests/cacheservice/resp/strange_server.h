// A server on loopback that answers whatever comes with bytes that the test chooses: the first bytes that come with the
// first answer, and so on; the last answer is for all further ones. Without any it only listens.
#ifndef TIDEPOOL_TESTS_CACHESERVICE_RESP_STRANGE_SERVER_H_
#define TIDEPOOL_TESTS_CACHESERVICE_RESP_STRANGE_SERVER_H_

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/check.h"
#include "cacheservice/resp/server_url.h"

namespace tidepool::test {

class StrangeServer {
 public:
  // PORT in an answer is the port.
  explicit StrangeServer(std::vector<std::string> answers) : answers_(std::move(answers)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    TIDEPOOL_CHECK(bind(listener_, reinterpret_cast<sockaddr*>(&address), size) == 0 && listen(listener_, 16) == 0);
    TIDEPOOL_CHECK(getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) == 0);
    port_ = ntohs(address.sin_port);
    for (std::string& answer : answers_) answer = absl::StrReplaceAll(answer, {{"PORT", absl::StrCat(port_)}});
    thread_ = std::thread([this] { Serve(); });
  }
  ~StrangeServer() {
    const uint64_t one = 1;
    TIDEPOOL_CHECK(write(stop_, &one, sizeof one) == sizeof one);
    thread_.join();
    for (const int fd : connections_) close(fd);
    close(listener_);
    close(stop_);
  }

  RespEndpoint endpoint() const { return {.host = "127.0.0.1", .port = port_}; }
  // From now on connections end when something was answered.
  void EndAfterAnswer() { end_after_answer_ = true; }

 private:
  void Serve() {
    std::vector<pollfd> waiting = {{.fd = stop_, .events = POLLIN}, {.fd = listener_, .events = POLLIN}};
    while (true) {
      poll(waiting.data(), waiting.size(), -1);
      if (waiting[0].revents != 0) return;
      if (waiting[1].revents != 0) {
        connections_.push_back(accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC));
        waiting.push_back({.fd = connections_.back(), .events = POLLIN});
      }
      for (size_t i = 2; i < waiting.size(); ++i) {
        if (waiting[i].revents == 0) continue;
        char bytes[4096];
        if (recv(waiting[i].fd, bytes, sizeof bytes, 0) <= 0) {
          waiting[i].fd = -1;
          continue;
        }
        if (answers_.empty()) continue;
        std::string_view left = answers_[std::min(answered_++, answers_.size() - 1)];
        while (!left.empty()) {
          const ssize_t part = send(waiting[i].fd, left.data(), left.size(), MSG_NOSIGNAL);
          if (part <= 0) break;
          left.remove_prefix(static_cast<size_t>(part));
        }
        if (end_after_answer_) shutdown(waiting[i].fd, SHUT_WR);
      }
    }
  }

  std::vector<std::string> answers_;  // as given, from the constructor on
  size_t answered_ = 0;
  const int listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int stop_ = eventfd(0, EFD_CLOEXEC);
  int port_ = 0;
  std::atomic<bool> end_after_answer_{false};
  std::vector<int> connections_;  // the thread's, until it is joined
  std::thread thread_;
};

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_CACHESERVICE_RESP_STRANGE_SERVER_H_
