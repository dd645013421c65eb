#include "client/http/http_connection.h"

#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/status.hpp>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace tidepool::http {
namespace {

namespace net = boost::asio;
namespace beast = boost::beast;

constexpr size_t kReadAheadBytes = 64 << 10;  // of what follows a head
constexpr absl::Duration kCloseGrace = absl::Seconds(2);

// Everything up to the body. What stands in it is ours, never the client's.
std::string HeadOf(int status, const std::string& content_type, bool keep_alive, const std::string& more) {
  const auto reason = beast::http::obsolete_reason(beast::http::int_to_status(static_cast<unsigned>(status)));
  return absl::StrCat("HTTP/1.1 ", status, " ", absl::string_view(reason.data(), reason.size()),
                      "\r\nServer: tidepool\r\nContent-Type: ", content_type,
                      "\r\nConnection: ", keep_alive ? "keep-alive" : "close", "\r\n", more, "\r\n");
}

}  // namespace

// What the service holds: passes everything on to the connection's strand.
class HttpConnection::Exchange : public HttpExchange {
 public:
  explicit Exchange(std::shared_ptr<HttpConnection> connection) : connection_(std::move(connection)) {}
  ~Exchange() override {
    if (!ended_) Post([](HttpConnection* c) { c->Close(); });
  }
  void Respond(HttpResponse response) override {
    ended_ = true;
    Post([response = std::move(response)](HttpConnection* c) { c->Respond(response); });
  }
  void StartStream(const std::string& content_type) override {
    Post([content_type](HttpConnection* c) { c->StartStream(content_type); });
  }
  void Write(std::string bytes, std::function<void()> written) override {
    Post(
        [bytes = std::move(bytes), written = std::move(written)](HttpConnection* c) { c->WriteChunk(bytes, written); });
  }
  void EndStream() override {
    ended_ = true;
    Post([](HttpConnection* c) { c->EndStream(); });
  }
  void OnGone(std::function<void()> gone) override {
    Post([gone = std::move(gone)](HttpConnection* c) { c->OnGone(gone); });
  }

 private:
  template <typename Action>
  void Post(Action action) {
    net::post(connection_->socket_.get_executor(),
              [connection = connection_, action = std::move(action)] { action(connection.get()); });
  }

  const std::shared_ptr<HttpConnection> connection_;
  bool ended_ = false;
};

HttpConnection::HttpConnection(Socket socket, ConnectionHost* host)
    : end_notice_{host},
      host_(host),
      socket_(std::move(socket)),
      timer_(socket_.get_executor()),
      buffer_(host->options.max_head_bytes + kReadAheadBytes) {}

HttpConnection::~HttpConnection() { ReleaseBody(); }

void HttpConnection::Start() {
  net::post(socket_.get_executor(), [self = shared_from_this()] {
    self->LimitTime(self->host_->options.head_timeout);
    self->ReadHead();
  });
}

void HttpConnection::Drain() {
  net::post(socket_.get_executor(), [self = shared_from_this()] {
    if (self->phase_ == Phase::kHead) self->Close();
  });
}

void HttpConnection::Stop() {
  net::post(socket_.get_executor(), [self = shared_from_this()] { self->Close(); });
}

// --- Requests
// ---------------------------------------------------------------------------------------------------------

void HttpConnection::ReadHead() {
  parser_.emplace();
  parser_->header_limit(static_cast<uint32_t>(host_->options.max_head_bytes));
  parser_->body_limit(host_->options.max_body_bytes);
  reading_ = true;
  beast::http::async_read_header(socket_, buffer_, *parser_,
                                 [self = shared_from_this()](Error error, size_t) { self->OnHead(error); });
}

void HttpConnection::OnHead(Error error) {
  reading_ = false;
  if (closed_) return;
  if (phase_ == Phase::kClosing) return Close();
  if (phase_ == Phase::kAnswer) {
    if (!error) {
      head_waits_ = true;
    } else if (error.category() == beast::http::make_error_code(beast::http::error::bad_method).category() &&
               error != beast::http::error::end_of_stream && error != beast::http::error::partial_message) {
      keep_alive_ = false;  // no HTTP follows: this answer is the last one
    } else {
      Close();
    }
    return;
  }
  if (error) return RefuseInput(error);
  TakeHead();
}

void HttpConnection::TakeHead() {
  const auto& message = parser_->get();
  const auto text = [](beast::string_view view) { return std::string(view.data(), view.size()); };
  head_.method = text(message.method_string());
  head_.path = text(message.target());
  head_.path = head_.path.substr(0, head_.path.find('?'));
  head_.authorization = text(message[beast::http::field::authorization]);
  head_.traceparent = text(message["traceparent"]);
  head_.content_type = text(message[beast::http::field::content_type]);
  keep_alive_ = message.keep_alive();
  chunked_ = message.version() >= 11;
  if (std::optional<HttpResponse> refusal = host_->service->Refuse(head_); refusal.has_value()) {
    BeginAnswer();
    return Respond(*refusal);
  }
  if (parser_->is_done()) {
    BeginAnswer();
    return host_->service->Serve(head_, std::string(), std::make_shared<Exchange>(shared_from_this()));
  }
  if (!ReserveBody()) {
    BeginAnswer();
    return Respond(host_->service->Error(503, "too many large requests at once"));
  }
  if (absl::EqualsIgnoreCase(text(message[beast::http::field::expect]), "100-continue")) {
    Queue("HTTP/1.1 100 Continue\r\n\r\n");
  }
  phase_ = Phase::kBody;
  ReadBody();
}

void HttpConnection::ReadBody() {
  LimitTime(host_->options.body_timeout);
  beast::http::async_read(socket_, buffer_, *parser_,
                          [self = shared_from_this()](Error error, size_t) { self->OnBody(error); });
}

void HttpConnection::OnBody(Error error) {
  if (closed_) return;
  if (error) return RefuseInput(error);
  std::string body = std::move(parser_->get().body());
  BeginAnswer();
  host_->service->Serve(head_, std::move(body), std::make_shared<Exchange>(shared_from_this()));
}

void HttpConnection::BeginAnswer() {
  phase_ = Phase::kAnswer;
  LimitTime(absl::InfiniteDuration());
  if (parser_->is_done()) {
    ReadHead();
  } else {
    keep_alive_ = false;  // the body is not read
  }
}

void HttpConnection::RefuseInput(Error error) {
  using Http = beast::http::error;
  int status = 400;
  std::string message = absl::StrCat("not acceptable as HTTP: ", error.message());
  if (error == Http::header_limit || error == Http::buffer_overflow) {
    status = 431;
    message = absl::StrCat("the request line or the headers are too long, at most ", host_->options.max_head_bytes,
                           " bytes each");
  } else if (error == Http::body_limit) {
    status = 413;
    message = absl::StrCat("the request's body is too long, at most ", host_->options.max_body_bytes, " bytes");
  } else if (error == Http::end_of_stream || error == Http::partial_message ||
             error.category() != beast::http::make_error_code(Http::bad_method).category()) {
    return Close();  // the client has gone
  }
  phase_ = Phase::kAnswer;
  keep_alive_ = false;
  head_.method.clear();
  Respond(host_->service->Error(status, message));
}

bool HttpConnection::ReserveBody() {
  const auto length = parser_->content_length();
  const size_t bytes = length ? static_cast<size_t>(*length) : host_->options.max_body_bytes;
  if (host_->body_bytes.fetch_add(bytes) + bytes > host_->options.max_body_bytes_at_once) {
    host_->body_bytes.fetch_sub(bytes);
    return false;
  }
  reserved_ = bytes;
  return true;
}

void HttpConnection::ReleaseBody() { host_->body_bytes.fetch_sub(std::exchange(reserved_, 0)); }

// --- Answers
// ----------------------------------------------------------------------------------------------------------

void HttpConnection::Respond(const HttpResponse& response) {
  if (closed_) return;
  keep_alive_ = keep_alive_ && !host_->draining;
  std::string more = absl::StrCat("Content-Length: ", response.body.size(), "\r\n");
  for (const auto& [name, value] : response.headers) absl::StrAppend(&more, name, ": ", value, "\r\n");
  std::string bytes = HeadOf(response.status, response.content_type, keep_alive_, more);
  if (head_.method != "HEAD") bytes += response.body;
  complete_ = true;
  Queue(std::move(bytes));
}

void HttpConnection::StartStream(const std::string& content_type) {
  if (closed_) return;
  keep_alive_ = keep_alive_ && chunked_ && !host_->draining;
  std::string more = "Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\n";
  if (chunked_) more += "Transfer-Encoding: chunked\r\n";
  Queue(HeadOf(200, content_type, keep_alive_, more));
}

void HttpConnection::WriteChunk(const std::string& bytes, std::function<void()> written) {
  if (closed_) return;
  Queue(chunked_ ? absl::StrCat(absl::Hex(bytes.size()), "\r\n", bytes, "\r\n") : bytes, std::move(written));
}

void HttpConnection::EndStream() {
  if (closed_) return;
  complete_ = true;
  Queue(chunked_ ? "0\r\n\r\n" : "");
}

void HttpConnection::OnGone(std::function<void()> gone) {
  if (closed_) return gone();
  gone_ = std::move(gone);
}

void HttpConnection::Queue(std::string bytes, std::function<void()> written) {
  queue_.push_back({std::move(bytes), std::move(written)});
  WriteNext();
}

void HttpConnection::WriteNext() {
  if (writing_ || closed_) return;
  if (queue_.empty()) {
    if (complete_) EndAnswer();
    return;
  }
  writing_ = true;
  if (phase_ == Phase::kAnswer) LimitTime(host_->options.write_timeout);
  net::async_write(socket_, net::buffer(queue_.front().bytes), [self = shared_from_this()](Error error, size_t) {
    self->writing_ = false;
    const Output output = std::move(self->queue_.front());
    self->queue_.pop_front();
    if (self->closed_) return;
    if (error) return self->Close();
    if (self->phase_ == Phase::kAnswer) self->LimitTime(absl::InfiniteDuration());
    if (output.written) output.written();
    self->WriteNext();
  });
}

void HttpConnection::EndAnswer() {
  complete_ = false;
  gone_ = nullptr;
  ReleaseBody();
  if (!keep_alive_ || host_->draining) return AwaitClose();
  phase_ = Phase::kHead;
  LimitTime(host_->options.head_timeout);
  if (std::exchange(head_waits_, false)) TakeHead();
}

// The client has what was written when it closes. Closing first could reset the connection under the answer, when bytes
// of the client are unread.
void HttpConnection::AwaitClose() {
  phase_ = Phase::kClosing;
  Error ignored;
  socket_.shutdown(Socket::shutdown_send, ignored);
  LimitTime(kCloseGrace);
  if (!reading_) Discard();
}

void HttpConnection::Discard() {
  buffer_.clear();
  socket_.async_read_some(buffer_.prepare(kReadAheadBytes), [self = shared_from_this()](Error error, size_t) {
    if (self->closed_) return;
    if (error) return self->Close();
    self->Discard();
  });
}

void HttpConnection::Close() {
  if (std::exchange(closed_, true)) return;
  timer_.cancel();
  Error ignored;
  socket_.close(ignored);
  if (!writing_) queue_.clear();  // the bytes being written are the first's
  if (auto gone = std::exchange(gone_, nullptr)) gone();
}

void HttpConnection::LimitTime(absl::Duration time) {
  if (time == absl::InfiniteDuration()) {
    timer_.expires_at(std::chrono::steady_clock::time_point::max());
    return;
  }
  timer_.expires_after(absl::ToChronoNanoseconds(time));
  timer_.async_wait([self = shared_from_this()](Error error) {
    // A limit that was moved when its end was on the way here does not count.
    if (!error && self->timer_.expiry() <= std::chrono::steady_clock::now()) self->Close();
  });
}

}  // namespace tidepool::http
