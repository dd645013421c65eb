// Any bytes on a connection of the HTTP server: what it takes is within its limits, what it answers is HTTP, and the
// connection ends.
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "base/check.h"
#include "client/http/http_server.h"
#include "tests/fuzz/fuzz_target.h"

namespace tidepool::http {
namespace {

constexpr size_t kMaxHeadBytes = 512, kMaxBodyBytes = 256;

class EchoService : public HttpService {
 public:
  std::optional<HttpResponse> Refuse(const HttpHead& head) override {
    TIDEPOOL_CHECK(!head.method.empty() && head.path.find('?') == std::string::npos);
    TIDEPOOL_CHECK(head.method.size() + head.path.size() <= kMaxHeadBytes);
    TIDEPOOL_CHECK(head.authorization.size() + head.content_type.size() <= kMaxHeadBytes);
    if (head.path == "/refused") return HttpResponse{.status = 401};
    return std::nullopt;
  }
  void Serve(const HttpHead& head, std::string body, std::shared_ptr<HttpExchange> exchange) override {
    TIDEPOOL_CHECK(body.size() <= kMaxBodyBytes);
    if (head.path != "/stream") return exchange->Respond({.body = std::move(body)});
    exchange->StartStream("text/plain");
    exchange->Write(std::move(body) + ".", nullptr);
    exchange->EndStream();
  }
  HttpResponse Error(int status, const std::string& message) override { return {.status = status, .body = message}; }
};

// On a Unix socket in a fresh folder, for the life of the process.
const std::string& ServerPath() {
  static const std::string& path = *[] {
    char folder[] = "/tmp/tidepool_http_fuzz_XXXXXX";
    TIDEPOOL_CHECK(mkdtemp(folder) != nullptr);
    auto* made = new std::string(std::string(folder) + "/s");
    static EchoService& service = *new EchoService;
    static auto& server = *new auto(HttpServer::Start(
        {.listen = "unix:" + *made, .threads = 1, .max_head_bytes = kMaxHeadBytes, .max_body_bytes = kMaxBodyBytes},
        &service));
    TIDEPOOL_CHECK(server.ok());
    std::atexit([] {
      server->reset();
      rmdir(ServerPath().substr(0, ServerPath().rfind('/')).c_str());
    });
    return made;
  }();
  return path;
}

void RunInput(std::string_view bytes) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  ServerPath().copy(address.sun_path, sizeof address.sun_path - 1);
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  TIDEPOOL_CHECK(fd >= 0 && connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  while (!bytes.empty()) {
    const ssize_t sent = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) break;  // the server has had enough
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  shutdown(fd, SHUT_WR);
  std::string answer;
  char buffer[4096];
  for (ssize_t size; (size = recv(fd, buffer, sizeof buffer, 0)) > 0;) answer.append(buffer, static_cast<size_t>(size));
  close(fd);
  TIDEPOOL_CHECK(answer.empty() || answer.starts_with("HTTP/1.1 "));
}

}  // namespace
}  // namespace tidepool::http

namespace tidepool::test {

std::vector<std::string> FuzzSeeds() {
  return {
      "GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /stream?a=1 HTTP/1.0\r\n\r\n",
      "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
      "POST /stream HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n2;x=y\r\n{}\r\n0\r\nTrailer: "
      "1\r\n\r\n",
      "HEAD /refused HTTP/1.1\r\nAuthorization: Bearer key\r\nConnection: close\r\n\r\n",
      "POST /refused HTTP/1.1\r\nContent-Length: 300\r\n\r\n" + std::string(300, 'x'),
      "GET /" + std::string(600, 'x'),
  };
}

}  // namespace tidepool::test

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tidepool::http::RunInput({reinterpret_cast<const char*>(data), size});
  return 0;
}
