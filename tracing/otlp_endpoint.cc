#include "tracing/otlp_endpoint.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace tidepool {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
using boost::asio::ip::tcp;

constexpr size_t kMostAnswerBytes = 64 << 10;

// One POST: each step begins the next one.
class Post {
 public:
  Post(const OtlpEndpoint& endpoint, std::string body, absl::Duration timeout)
      : timeout_(absl::ToChronoNanoseconds(timeout)),
        request_(beast::http::verb::post, endpoint.path, /*version=*/11, std::move(body)) {
    request_.set(beast::http::field::host, endpoint.host);
    request_.set(beast::http::field::content_type, "application/json");
    request_.prepare_payload();
    request_.keep_alive(false);
    answer_.body_limit(kMostAnswerBytes);
    resolver_.async_resolve(endpoint.host, endpoint.port, [this](beast::error_code error, const auto& addresses) {
      if (!error) Connect(addresses);
    });
  }

  absl::Status Run() {
    context_.run_for(timeout_);
    if (!answered_) return absl::UnavailableError("no answer");
    const int status = static_cast<int>(answer_.get().result_int());
    if (status / 100 == 2) return absl::OkStatus();
    return absl::UnavailableError(absl::StrCat("answers ", status));
  }

 private:
  void Connect(const tcp::resolver::results_type& addresses) {
    stream_.async_connect(addresses, [this](beast::error_code error, const auto&) {
      if (!error) Write();
    });
  }
  void Write() {
    beast::http::async_write(stream_, request_, [this](beast::error_code error, size_t) {
      if (!error) Read();
    });
  }
  void Read() {
    beast::http::async_read(stream_, buffer_, answer_, [this](beast::error_code error, size_t) { answered_ = !error; });
  }

  const std::chrono::nanoseconds timeout_;
  asio::io_context context_{1};
  tcp::resolver resolver_{context_};
  beast::tcp_stream stream_{context_};
  beast::http::request<beast::http::string_body> request_;
  beast::flat_buffer buffer_;
  beast::http::response_parser<beast::http::string_body> answer_;
  bool answered_ = false;
};

}  // namespace

absl::StatusOr<OtlpEndpoint> OtlpEndpoint::Parse(const std::string& url) {
  constexpr absl::string_view kScheme = "http://";
  const auto bad = [&](const char* why) { return absl::InvalidArgumentError(absl::StrCat("'", url, "' ", why)); };
  if (!absl::StartsWith(url, kScheme)) return bad("is not http://HOST:PORT");
  const std::string rest = url.substr(kScheme.size());
  const size_t slash = rest.find('/');
  const std::string authority = rest.substr(0, slash);
  OtlpEndpoint endpoint{authority, "4318", slash == std::string::npos ? "/v1/traces" : rest.substr(slash)};
  if (endpoint.path == "/") endpoint.path = "/v1/traces";
  const size_t colon = authority.rfind(':');
  if (colon != std::string::npos && authority.find(']', colon) == std::string::npos) {
    endpoint.host = authority.substr(0, colon);
    endpoint.port = authority.substr(colon + 1);
  }
  int port = 0;
  if (!absl::SimpleAtoi(endpoint.port, &port) || port < 1 || port > 65535) return bad("has no port of 1 to 65535");
  if (endpoint.host.size() > 2 && endpoint.host.front() == '[' && endpoint.host.back() == ']') {
    endpoint.host = endpoint.host.substr(1, endpoint.host.size() - 2);
  }
  if (endpoint.host.empty()) return bad("has no host");
  return endpoint;
}

absl::Status PostJson(const OtlpEndpoint& endpoint, std::string body, absl::Duration timeout) {
  return Post(endpoint, std::move(body), timeout).Run();
}

}  // namespace tidepool
