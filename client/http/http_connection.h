// One connection of the server: requests one after the other, each answered by the service before the next is taken.
// All of it runs on the socket's strand. Includes Boost: for .cc files of this folder only.
#ifndef TIDEPOOL_CLIENT_HTTP_HTTP_CONNECTION_H_
#define TIDEPOOL_CLIENT_HTTP_HTTP_CONNECTION_H_

#include <atomic>
#include <boost/asio/basic_stream_socket.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/beast/core/error.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "client/http/http_server.h"
#include "client/http/http_service.h"

namespace tidepool::http {

using Strand = boost::asio::strand<boost::asio::io_context::executor_type>;
using Socket = boost::asio::basic_stream_socket<boost::asio::generic::stream_protocol, Strand>;

// What all connections share; outlives them.
struct ConnectionHost {
  HttpServerOptions options;
  HttpService* service = nullptr;
  std::atomic<size_t> body_bytes{0};  // reserved for bodies that are read or served
  std::atomic<bool> draining{false};  // connections end after their answers
  std::function<void()> on_end;       // a connection is no more, its socket included
};

class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  HttpConnection(Socket socket, ConnectionHost* host);
  ~HttpConnection();

  // From any thread. Drain: ends after the answer under way, at once when there is none. Stop: ends now.
  void Start();
  void Drain();
  void Stop();

 private:
  using Error = boost::beast::error_code;
  class Exchange;
  struct Output {
    std::string bytes;
    std::function<void()> written;
  };
  enum class Phase {
    kHead,     // waits for a request
    kBody,     // reads its body
    kAnswer,   // the service has it
    kClosing,  // the last answer is written; waits for the client to close
  };

  // While an answer is under way the next head is read already: that is how a client that goes is noticed.
  void ReadHead();
  void OnHead(Error error);
  void TakeHead();
  void ReadBody();
  void OnBody(Error error);
  void BeginAnswer();
  void RefuseInput(Error error);

  // The answer, as the exchange says it.
  void Respond(const HttpResponse& response);
  void StartStream(const std::string& content_type);
  void WriteChunk(const std::string& bytes, std::function<void()> written);
  void EndStream();
  void OnGone(std::function<void()> gone);

  void Queue(std::string bytes, std::function<void()> written = nullptr);
  void WriteNext();
  void EndAnswer();
  void AwaitClose();
  void Discard();
  void Close();
  void LimitTime(absl::Duration time);  // then the connection is closed
  bool ReserveBody();
  void ReleaseBody();

  // Destroyed last: then nothing of the connection needs the server any more.
  struct EndNotice {
    ConnectionHost* host;
    ~EndNotice() { host->on_end(); }
  };
  const EndNotice end_notice_;
  ConnectionHost* const host_;
  Socket socket_;
  boost::asio::basic_waitable_timer<std::chrono::steady_clock, boost::asio::wait_traits<std::chrono::steady_clock>,
                                    Strand>
      timer_;
  boost::beast::flat_buffer buffer_;
  std::optional<boost::beast::http::request_parser<boost::beast::http::string_body>> parser_;
  HttpHead head_;
  Phase phase_ = Phase::kHead;
  bool head_waits_ = false;  // the next head is read and its turn has not come
  bool reading_ = false;     // a head is being read
  bool keep_alive_ = false;
  bool chunked_ = false;   // the client understands chunks
  bool complete_ = false;  // the answer ends with the queue
  bool writing_ = false;
  bool closed_ = false;
  size_t reserved_ = 0;
  std::deque<Output> queue_;
  std::function<void()> gone_;
};

}  // namespace tidepool::http

#endif  // TIDEPOOL_CLIENT_HTTP_HTTP_CONNECTION_H_
