// The server over real sockets, with a service whose answers the test gives.
#include "client/http/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "tests/support/eventually.h"
#include "tests/support/raw_client.h"
#include "tests/support/temp_dir.h"

namespace tidepool::http {
namespace {

using test::RawClient;
using test::RawResponse;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

// /echo answers with the body at once; other paths wait for the test; /refused is refused.
class TestService : public HttpService {
 public:
  std::optional<HttpResponse> Refuse(const HttpHead& head) override {
    if (head.path != "/refused") return std::nullopt;
    return HttpResponse{.status = 401, .body = "no"};
  }
  void Serve(const HttpHead& head, std::string body, std::shared_ptr<HttpExchange> exchange) override {
    if (head.path == "/echo")
      return exchange->Respond({.content_type = "text/plain", .body = head.method + " " + body});
    exchange->OnGone([this] {
      MutexLock lock(&mutex_);
      ++gone_;
      changed_.SignalAll();
    });
    MutexLock lock(&mutex_);
    waiting_.push_back(std::move(exchange));
    changed_.SignalAll();
  }
  HttpResponse Error(int status, const std::string& message) override { return {.status = status, .body = message}; }

  std::shared_ptr<HttpExchange> Take() {
    MutexLock lock(&mutex_);
    while (waiting_.empty()) changed_.Wait(&mutex_);
    std::shared_ptr<HttpExchange> exchange = std::move(waiting_.front());
    waiting_.erase(waiting_.begin());
    return exchange;
  }
  void WaitForGone(int number) {
    MutexLock lock(&mutex_);
    while (gone_ < number) changed_.Wait(&mutex_);
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::vector<std::shared_ptr<HttpExchange>> waiting_ ABSL_GUARDED_BY(mutex_);
  int gone_ ABSL_GUARDED_BY(mutex_) = 0;
};

class HttpServerTest : public testing::Test {
 protected:
  void Start(HttpServerOptions options = {}) {
    if (options.listen == HttpServerOptions().listen) options.listen = "127.0.0.1:0";
    absl::StatusOr<std::unique_ptr<HttpServer>> server = HttpServer::Start(options, &service_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  int port() const { return server_->port(); }

  TestService service_;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, AConnectionTakesOneRequestAfterTheOther) {
  Start();
  RawClient client(port());
  for (int i = 0; i < 3; ++i) {
    client.Post("/echo?x=1", "body " + std::to_string(i));
    const RawResponse response = client.ReadResponse();
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(response.Header("Content-Type"), "text/plain");
    EXPECT_EQ(response.Header("Connection"), "keep-alive");
    EXPECT_EQ(response.body, "POST body " + std::to_string(i));
  }
}

TEST_F(HttpServerTest, RequestsSentAtOnceAreAnsweredInOrder) {
  Start();
  RawClient client(port());
  std::string all;
  for (int i = 0; i < 5; ++i) {
    all += "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n" + std::to_string(i);
  }
  client.Send(all);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(client.ReadResponse().body, "POST " + std::to_string(i));
}

TEST_F(HttpServerTest, AClientMayAskForTheEndOfTheConnection) {
  Start();
  RawClient client(port());
  client.Send("GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().Header("Connection"), "close");
  EXPECT_EQ(client.ReadToEnd(), "");
  RawClient older(port());
  older.Send("GET /echo HTTP/1.0\r\n\r\n");
  EXPECT_THAT(older.ReadToEnd(), HasSubstr("GET "));
}

TEST_F(HttpServerTest, HeadIsAnsweredWithoutABody) {
  Start();
  RawClient client(port());
  client.Send("HEAD /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const std::string all = client.ReadToEnd();
  EXPECT_THAT(all, HasSubstr("Content-Length: 5\r\n"));
  EXPECT_TRUE(all.ends_with("\r\n\r\n"));
}

TEST_F(HttpServerTest, WhatIsNoHttpIsAnsweredWith400AndTheConnectionEnds) {
  Start();
  for (const char* bad :
       {"nonsense\r\n\r\n", "GET /echo HTTP/1.1\r\nbad header\r\n\r\n",
        "POST /echo HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        "POST /echo HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "POST /echo HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"}) {
    RawClient client(port());
    client.Send(bad);
    EXPECT_THAT(client.ReadToEnd(), StartsWith("HTTP/1.1 400 Bad Request\r\n")) << bad;
  }
}

TEST_F(HttpServerTest, HeadsAndBodiesHaveLimits) {
  Start({.max_head_bytes = 1000, .max_body_bytes = 1000});
  RawClient head(port());
  head.Send("GET /echo HTTP/1.1\r\nX: " + std::string(2000, 'x'));
  EXPECT_THAT(head.ReadToEnd(), StartsWith("HTTP/1.1 431 "));
  RawClient said(port());
  said.Send("POST /echo HTTP/1.1\r\nContent-Length: 1001\r\n\r\n");
  EXPECT_THAT(said.ReadToEnd(), StartsWith("HTTP/1.1 413 "));
  RawClient chunked(port());
  chunked.Send("POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" + std::string(1001, 'x') +
               "\r\n0\r\n\r\n");
  EXPECT_THAT(chunked.ReadToEnd(), StartsWith("HTTP/1.1 413 "));
  RawClient just(port());
  just.Post("/echo", std::string(1000, 'x'));
  EXPECT_EQ(just.ReadResponse().body.size(), 1005u);
}

TEST_F(HttpServerTest, TheBodiesOfAllConnectionsHaveALimitTogether) {
  Start({.max_body_bytes = 1000, .max_body_bytes_at_once = 1500});
  RawClient first(port()), second(port());
  first.Post("/wait", std::string(1000, 'x'));
  const std::shared_ptr<HttpExchange> exchange = service_.Take();
  second.Post("/echo", std::string(600, 'x'));
  const RawResponse busy = second.ReadResponse();
  EXPECT_EQ(busy.status, 503);
  EXPECT_THAT(busy.body, HasSubstr("too many large requests"));
  exchange->Respond({.body = "done"});
  EXPECT_EQ(first.ReadResponse().body, "done");
  // The first one's room is free once its response has gone out, which its client may see before.
  EXPECT_TRUE(test::Eventually([&] {
    RawClient third(port());
    third.Post("/echo", std::string(600, 'x'));
    return third.ReadResponse().status == 200;
  }));
}

TEST_F(HttpServerTest, AClientThatAsksBeforeItSendsIsToldToGoOn) {
  Start();
  RawClient client(port());
  client.Send("POST /echo HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
  EXPECT_EQ(client.ReadUntil("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.Send("ok");
  EXPECT_EQ(client.ReadResponse().body, "POST ok");
}

TEST_F(HttpServerTest, ARefusalComesBeforeTheBody) {
  Start();
  RawClient client(port());
  client.Send("POST /refused HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n");
  const RawResponse response = client.ReadResponse();
  EXPECT_EQ(response.status, 401);
  EXPECT_EQ(response.Header("Connection"), "close");
  EXPECT_EQ(client.ReadToEnd(), "");
  RawClient another(port());
  another.Get("/refused");
  EXPECT_EQ(another.ReadResponse().Header("Connection"), "keep-alive");
}

TEST_F(HttpServerTest, AStreamIsSentAsItIsWritten) {
  Start();
  RawClient client(port());
  client.Get("/wait");
  const std::shared_ptr<HttpExchange> exchange = service_.Take();
  exchange->StartStream("text/event-stream");
  exchange->Write("one", nullptr);
  const RawResponse head = client.ReadHead();
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.Header("Content-Type"), "text/event-stream");
  EXPECT_EQ(client.ReadChunk(), "one");
  Mutex mutex;
  CondVar changed;
  bool written = false;
  exchange->Write("two", [&] {
    MutexLock lock(&mutex);
    written = true;
    changed.SignalAll();
  });
  EXPECT_EQ(client.ReadChunk(), "two");
  {
    MutexLock lock(&mutex);
    while (!written) changed.Wait(&mutex);
  }
  exchange->EndStream();
  EXPECT_EQ(client.ReadChunk(), "");
  client.Get("/echo");
  EXPECT_EQ(client.ReadResponse().body, "GET ");
}

TEST_F(HttpServerTest, AnOlderClientsStreamEndsWithTheConnection) {
  Start();
  RawClient client(port());
  client.Send("GET /wait HTTP/1.0\r\n\r\n");
  const std::shared_ptr<HttpExchange> exchange = service_.Take();
  exchange->StartStream("text/plain");
  exchange->Write("one", nullptr);
  exchange->EndStream();
  const std::string all = client.ReadToEnd();
  EXPECT_THAT(all, HasSubstr("Connection: close"));
  EXPECT_TRUE(all.ends_with("\r\n\r\none"));
}

TEST_F(HttpServerTest, AClientThatGoesIsNoticedAtOnce) {
  Start();
  {
    RawClient silent(port());
    silent.Get("/wait");
    const std::shared_ptr<HttpExchange> exchange = service_.Take();
    silent.Close();
    service_.WaitForGone(1);
    exchange->Respond({.body = "into the void"});
  }
  RawClient streaming(port());
  streaming.Get("/wait");
  const std::shared_ptr<HttpExchange> exchange = service_.Take();
  exchange->StartStream("text/plain");
  exchange->Write("one", nullptr);
  streaming.ReadUntil("one");
  streaming.Close();
  service_.WaitForGone(2);
  exchange->Write("two", nullptr);
  exchange->EndStream();
}

TEST_F(HttpServerTest, AClientThatHasGoneAlreadyIsSaidToHave) {
  Start();
  RawClient client(port());
  client.Get("/wait");
  const std::shared_ptr<HttpExchange> exchange = service_.Take();
  client.Close();
  service_.WaitForGone(1);
  Mutex mutex;
  CondVar changed;
  bool told = false;
  exchange->OnGone([&] {
    MutexLock lock(&mutex);
    told = true;
    changed.SignalAll();
  });
  MutexLock lock(&mutex);
  while (!told) changed.Wait(&mutex);
}

TEST_F(HttpServerTest, AnExchangeThatIsLetGoClosesItsConnection) {
  Start();
  RawClient client(port());
  client.Get("/wait");
  service_.Take().reset();
  EXPECT_EQ(client.ReadToEnd(), "");
}

TEST_F(HttpServerTest, AClientThatReadsNothingIsGivenUp) {
  Start({.write_timeout = absl::Milliseconds(50)});
  RawClient client(port());
  client.Get("/wait");
  const std::shared_ptr<HttpExchange> exchange = service_.Take();
  exchange->StartStream("text/plain");
  exchange->Write(std::string(64 << 20, 'x'), nullptr);  // more than the kernel's buffers hold
  service_.WaitForGone(1);
}

TEST_F(HttpServerTest, AClientThatSendsNothingOrSlowlyIsGivenUp) {
  Start({.head_timeout = absl::Milliseconds(50), .body_timeout = absl::Milliseconds(50)});
  RawClient silent(port()), slow(port()), half(port());
  slow.Send("GET /echo HT");
  half.Send("POST /echo HTTP/1.1\r\nContent-Length: 5\r\n\r\nab");
  EXPECT_EQ(silent.ReadToEnd(), "");
  EXPECT_EQ(slow.ReadToEnd(), "");
  EXPECT_EQ(half.ReadToEnd(), "");
  // The limit is for waiting clients: an answer may take longer.
  RawClient waiting(port());
  waiting.Get("/wait");
  const std::shared_ptr<HttpExchange> exchange = service_.Take();
  RawClient timer(port());
  timer.ReadToEnd();  // 50 ms have passed
  exchange->Respond({.body = "late"});
  EXPECT_EQ(waiting.ReadResponse().body, "late");
}

TEST_F(HttpServerTest, ConnectionsPastTheLimitAreTurnedAway) {
  Start({.max_connections = 2});
  RawClient first(port()), second(port());
  first.Get("/echo");
  second.Get("/echo");
  EXPECT_EQ(first.ReadResponse().status, 200);
  EXPECT_EQ(second.ReadResponse().status, 200);
  RawClient third(port());
  EXPECT_THAT(third.ReadToEnd(), StartsWith("HTTP/1.1 503 "));
}

TEST_F(HttpServerTest, ShutdownLetsAnswersEndAndTakesNothingNew) {
  Start();
  RawClient idle(port()), busy(port());
  idle.Get("/echo");
  EXPECT_EQ(idle.ReadResponse().status, 200);
  busy.Get("/wait");
  std::shared_ptr<HttpExchange> exchange = service_.Take();
  std::thread shutdown([&] { server_->Shutdown(absl::Hours(1)); });
  EXPECT_EQ(idle.ReadToEnd(), "");
  EXPECT_THROW(RawClient(port()).ReadToEnd(), std::runtime_error);
  exchange->Respond({.body = "the last"});
  const RawResponse response = busy.ReadResponse();
  EXPECT_EQ(response.body, "the last");
  EXPECT_EQ(response.Header("Connection"), "close");
  busy.Close();
  exchange.reset();
  shutdown.join();
  EXPECT_EQ(server_->open_connections(), 0);
}

TEST_F(HttpServerTest, ShutdownEndsAnswersWhenItsTimeIsOver) {
  Start();
  RawClient client(port());
  client.Get("/wait");
  std::shared_ptr<HttpExchange> exchange = service_.Take();
  std::thread shutdown([&] { server_->Shutdown(absl::ZeroDuration()); });
  service_.WaitForGone(1);
  exchange.reset();
  shutdown.join();
  EXPECT_EQ(client.ReadToEnd(), "");
}

TEST_F(HttpServerTest, AUnixSocketIsAsGoodAndOneLeftBehindIsReplaced) {
  test::TempDir dir;
  const std::string path = dir.File("http.sock");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  const int left_behind = socket(AF_UNIX, SOCK_STREAM, 0);
  ASSERT_EQ(bind(left_behind, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  close(left_behind);
  Start({.listen = "unix:" + path});
  EXPECT_EQ(server_->address(), "unix:" + path);
  EXPECT_EQ(port(), 0);
  {
    RawClient client(path);
    client.Get("/echo");
    EXPECT_EQ(client.ReadResponse().body, "GET ");
  }
  server_.reset();
  EXPECT_THROW(RawClient{path}, std::runtime_error);
}

TEST(HttpServerStartTest, MistakesAreNamed) {
  TestService service;
  const auto start = [&](HttpServerOptions options) { return HttpServer::Start(options, &service).status(); };
  EXPECT_THAT(std::string(start({.threads = 0}).message()), HasSubstr("threads: 0"));
  EXPECT_THAT(std::string(start({.max_connections = 0}).message()), HasSubstr("max_connections: 0"));
  EXPECT_EQ(start({.listen = "unix:/" + std::string(200, 'x')}).code(), absl::StatusCode::kInvalidArgument);
  const auto first = HttpServer::Start({.listen = "127.0.0.1:0"}, &service);
  ASSERT_TRUE(first.ok());
  EXPECT_THAT(std::string(start({.listen = (*first)->address()}).message()), HasSubstr("cannot listen on"));
}

TEST_F(HttpServerTest, ManyConnectionsAtOnceAreServedByTwoThreads) {
  Start();
  std::vector<std::unique_ptr<RawClient>> clients;
  std::vector<std::shared_ptr<HttpExchange>> exchanges;
  for (int i = 0; i < 200; ++i) {
    clients.push_back(std::make_unique<RawClient>(port()));
    clients.back()->Get("/wait");
    exchanges.push_back(service_.Take());
    exchanges.back()->StartStream("text/plain");
  }
  for (int round = 0; round < 5; ++round) {
    for (const auto& exchange : exchanges) exchange->Write("event " + std::to_string(round), nullptr);
  }
  for (const auto& exchange : exchanges) exchange->EndStream();
  for (const auto& client : clients) EXPECT_EQ(client->ReadResponse().body, "event 0event 1event 2event 3event 4");
}

}  // namespace
}  // namespace tidepool::http
