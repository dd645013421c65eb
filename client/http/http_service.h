// What an HTTP server and those who answer its requests say to one another. No types of the HTTP library.
#ifndef TIDEPOOL_CLIENT_HTTP_HTTP_SERVICE_H_
#define TIDEPOOL_CLIENT_HTTP_HTTP_SERVICE_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace tidepool::http {

// A request without its body.
struct HttpHead {
  std::string method;                                    // in capitals
  std::string path;                                      // without the query
  std::string authorization, content_type, traceparent;  // headers; empty: none
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;  // more of them
};

// One request that waits for its answer: either Respond, or StartStream, Write..., EndStream. From any thread, one call
// at a time. What comes after the client has gone is dropped. One that is let go without an answer closes its
// connection.
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;
  virtual void Respond(HttpResponse response) = 0;
  virtual void StartStream(const std::string& content_type) = 0;
  // `written` is called when the kernel has the bytes: what is written before that lies in memory. Not called when the
  // client has gone.
  virtual void Write(std::string bytes, std::function<void()> written) = 0;
  virtual void EndStream() = 0;
  // Once, when the client has gone before it had its answer; at once when it has gone already.
  virtual void OnGone(std::function<void()> gone) = 0;
};

// Called by the server's threads, several at a time. Must not block.
class HttpService {
 public:
  virtual ~HttpService() = default;
  // A refusal that the head is enough for, so that nobody's body is read in vain; else nothing.
  virtual std::optional<HttpResponse> Refuse(const HttpHead& head) = 0;
  virtual void Serve(const HttpHead& head, std::string body, std::shared_ptr<HttpExchange> exchange) = 0;
  // The response to what is no acceptable HTTP, or to what there is no room for (503).
  virtual HttpResponse Error(int status, const std::string& message) = 0;
};

}  // namespace tidepool::http

#endif  // TIDEPOOL_CLIENT_HTTP_HTTP_SERVICE_H_
