// HTTP/1.1 over TCP or a Unix socket, with a limit on everything: connections, heads, bodies, the bytes of all bodies
// at once, and the time that a client may take to send and to receive. A few threads serve all connections, so that a
// thousand streams cost a thousand buffers. A client that closes its sending end is gone: its answer is not finished.
#ifndef TIDEPOOL_CLIENT_HTTP_HTTP_SERVER_H_
#define TIDEPOOL_CLIENT_HTTP_HTTP_SERVER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/http/http_service.h"

namespace tidepool::http {

struct HttpServerOptions {
  std::string listen = "127.0.0.1:8080";            // host:port (port 0: any free one) or unix:PATH
  int threads = 2;                                  // 1 to 64
  int max_connections = 1024;                       // 1 to 65,536; others get 503
  size_t max_head_bytes = 16 << 10;                 // of the request line, and of the headers; longer ones get 431
  size_t max_body_bytes = 8 << 20;                  // longer ones get 413
  size_t max_body_bytes_at_once = 256 << 20;        // of all connections; past it 503
  absl::Duration head_timeout = absl::Seconds(60);  // from the end of an answer, or the beginning, to the next head
  absl::Duration body_timeout = absl::Seconds(60);
  absl::Duration write_timeout = absl::Seconds(60);  // for what is written at once
};

class HttpServer {
 public:
  // Listens. The service outlives the server. InvalidArgument naming an option; Unavailable when it cannot listen.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const HttpServerOptions& options, HttpService* service);
  ~HttpServer();  // Shutdown(0)

  const std::string& address() const;
  int port() const;  // 0: a Unix socket
  int64_t open_connections() const;

  // Stops listening, lets answers under way go on for at most `grace`, then closes what is left.
  void Shutdown(absl::Duration grace);

 private:
  class Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tidepool::http

#endif  // TIDEPOOL_CLIENT_HTTP_HTTP_SERVER_H_
