// A client of bytes: what it sends and when is up to the test. Every wait ends with the event or the connection.
#ifndef TIDEPOOL_TESTS_SUPPORT_RAW_CLIENT_H_
#define TIDEPOOL_TESTS_SUPPORT_RAW_CLIENT_H_

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace tidepool::test {

struct RawResponse {
  int status = 0;
  std::string head;  // as it came
  std::string body;  // without chunks

  std::string Header(const std::string& name) const {
    const std::string lower = absl::AsciiStrToLower(head);
    const size_t at = lower.find("\r\n" + absl::AsciiStrToLower(name) + ": ");
    if (at == std::string::npos) return "";
    const size_t begin = at + name.size() + 4;
    return head.substr(begin, head.find("\r\n", begin) - begin);
  }
};

class RawClient {
 public:
  explicit RawClient(int port) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    Connect(reinterpret_cast<sockaddr*>(&address), sizeof address);
  }
  explicit RawClient(const std::string& path) : fd_(socket(AF_UNIX, SOCK_STREAM, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
    Connect(reinterpret_cast<sockaddr*>(&address), sizeof address);
  }
  ~RawClient() { Close(); }
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  void Close() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }

  // False: the server does not take them any more.
  bool Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }
  void Get(const std::string& path) { Send(absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: x\r\n\r\n")); }
  void Post(const std::string& path, const std::string& body, const std::string& headers = "") {
    Send(absl::StrCat("POST ", path, " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ",
                      body.size(), "\r\n", headers, "\r\n", body));
  }

  // Up to and with `text`, or to the end of the connection.
  std::string ReadUntil(std::string_view text) {
    size_t at;
    while ((at = received_.find(text)) == std::string::npos) {
      if (!Receive()) return Take(received_.size());
    }
    return Take(at + text.size());
  }
  std::string ReadBytes(size_t bytes) {
    while (received_.size() < bytes && Receive()) {
    }
    return Take(std::min(bytes, received_.size()));
  }
  // What comes until the server closes.
  std::string ReadToEnd() {
    while (Receive()) {
    }
    return Take(received_.size());
  }
  RawResponse ReadHead() {
    RawResponse response;
    response.head = ReadUntil("\r\n\r\n");
    if (response.head.size() > 12) response.status = std::atoi(response.head.c_str() + 9);
    return response;
  }
  // To the end of the connection.
  std::string ReadAll() {
    while (Receive()) {
    }
    return Take(received_.size());
  }
  // A chunk's bytes; empty: the last one.
  std::string ReadChunk() {
    const size_t size = std::stoul(absl::StrCat("0", ReadUntil("\r\n")), nullptr, 16);
    std::string chunk = ReadBytes(size);
    ReadBytes(2);
    return chunk;
  }
  RawResponse ReadResponse() {
    RawResponse response = ReadHead();
    size_t length = 0;
    if (response.Header("Transfer-Encoding") == "chunked") {
      for (std::string chunk = ReadChunk(); !chunk.empty(); chunk = ReadChunk()) response.body += chunk;
    } else if (absl::SimpleAtoi(response.Header("Content-Length"), &length)) {
      response.body = ReadBytes(length);
    }
    return response;
  }

 private:
  void Connect(const sockaddr* address, socklen_t size) {
    if (connect(fd_, address, size) != 0) throw std::runtime_error("cannot connect");
  }
  bool Receive() {
    char buffer[4096];
    const ssize_t size = recv(fd_, buffer, sizeof buffer, 0);
    if (size <= 0) return false;
    received_.append(buffer, static_cast<size_t>(size));
    return true;
  }
  std::string Take(size_t bytes) {
    std::string taken = received_.substr(0, bytes);
    received_.erase(0, bytes);
    return taken;
  }

  int fd_;
  std::string received_;
};

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_SUPPORT_RAW_CLIENT_H_
