#include "tests/support/fault_proxy.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>

#include "tests/support/eventually.h"
#include "tests/support/process.h"

namespace tidepool::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// Blocking, and closed at the end of the scope.
class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {}
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ~Socket() { Close(); }
  static Socket ConnectTo(int port) {
    Socket socket(::socket(AF_INET, SOCK_STREAM, 0));
    const sockaddr_in address = Loopback(port);
    if (connect(socket.fd_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) socket.Close();
    return socket;
  }
  static sockaddr_in Loopback(int port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
  }

  bool open() const { return fd_ >= 0; }
  int fd() const { return fd_; }
  void Close() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
  }
  void EndWriting() const { shutdown(fd_, SHUT_WR); }
  bool Write(const std::string& bytes) const {
    for (size_t sent = 0; sent < bytes.size();) {
      const ssize_t more = send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
      if (more <= 0) return false;
      sent += static_cast<size_t>(more);
    }
    return true;
  }
  // Up to so many bytes; fewer at the end of the stream or when it was reset.
  std::string Read(size_t bytes) {
    std::string all;
    while (all.size() < bytes) {
      std::string part(bytes - all.size(), '\0');
      const ssize_t got = recv(fd_, part.data(), part.size(), 0);
      reset_ = got < 0 && errno == ECONNRESET;
      if (got <= 0) break;
      all.append(part, 0, static_cast<size_t>(got));
    }
    return all;
  }
  bool was_reset() const { return reset_; }
  bool ReadableWithin(milliseconds time) const {
    pollfd polled = {.fd = fd_, .events = POLLIN, .revents = 0};
    return poll(&polled, 1, static_cast<int>(time.count())) > 0;
  }

 private:
  int fd_;
  bool reset_ = false;
};

class FaultProxyTest : public testing::Test {
 protected:
  FaultProxyTest() : listener_(::socket(AF_INET, SOCK_STREAM, 0)) {
    const sockaddr_in any = Socket::Loopback(0);
    EXPECT_EQ(bind(listener_.fd(), reinterpret_cast<const sockaddr*>(&any), sizeof(any)), 0);
    EXPECT_EQ(listen(listener_.fd(), 8), 0);
    sockaddr_in address{};
    socklen_t size = sizeof(address);
    getsockname(listener_.fd(), reinterpret_cast<sockaddr*>(&address), &size);
    proxy_ = std::make_unique<FaultProxy>("127.0.0.1:" + std::to_string(ntohs(address.sin_port)));
  }
  struct Pair {
    Socket client, server;
  };
  Pair Connect() {
    Socket client = Socket::ConnectTo(proxy_->port());
    EXPECT_TRUE(client.open());
    return {std::move(client), Socket(accept(listener_.fd(), nullptr, nullptr))};
  }
  static std::string Bytes(size_t count, uint64_t seed) {
    std::mt19937_64 random(seed);
    std::string bytes(count, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random());
    return bytes;
  }
  // Both ways at once, in pieces of random sizes.
  void ExpectExact(Pair& pair, size_t count) {
    const std::string up = Bytes(count, 1), down = Bytes(count, 2);
    auto write = [](const Socket& socket, const std::string& bytes, uint64_t seed) {
      std::mt19937_64 random(seed);
      for (size_t at = 0; at < bytes.size();) {
        const std::string piece = bytes.substr(at, 1 + random() % 100'000);
        EXPECT_TRUE(socket.Write(piece));
        at += piece.size();
      }
    };
    std::thread writes_up([&] { write(pair.client, up, 3); }), writes_down([&] { write(pair.server, down, 4); });
    std::string came_up;
    std::thread reads_up([&] { came_up = pair.server.Read(count); });
    EXPECT_TRUE(pair.client.Read(count) == down);
    for (std::thread* thread : {&writes_up, &writes_down, &reads_up}) thread->join();
    EXPECT_TRUE(came_up == up);
  }

  Socket listener_;
  std::unique_ptr<FaultProxy> proxy_;
};

TEST_F(FaultProxyTest, PassesEveryByteBothWays) {
  Pair one = Connect(), other = Connect();
  ExpectExact(one, 5'000'000);
  ExpectExact(other, 100'000);
  EXPECT_EQ(proxy_->counters().connections, 2);
  EXPECT_EQ(proxy_->counters().bytes_to_server, 5'100'000);
  EXPECT_EQ(proxy_->counters().bytes_to_client, 5'100'000);
}

TEST_F(FaultProxyTest, AnEndIsPassedOnAfterTheLastByteAndTheOtherWayGoesOn) {
  Pair pair = Connect();
  EXPECT_TRUE(pair.client.Write("question"));
  pair.client.EndWriting();
  EXPECT_EQ(pair.server.Read(100), "question");
  EXPECT_FALSE(pair.server.was_reset());
  EXPECT_TRUE(pair.server.Write("answer"));
  pair.server.Close();
  EXPECT_EQ(pair.client.Read(100), "answer");
  EXPECT_FALSE(pair.client.was_reset());
  EXPECT_TRUE(Eventually([&] { return proxy_->counters().open == 0; }));
}

TEST_F(FaultProxyTest, WithDelayAndJitterBytesComeLateInOrderAndExact) {
  Pair pair = Connect();
  proxy_->Set({.delay = milliseconds(30), .jitter = milliseconds(20)});
  const auto start = steady_clock::now();
  EXPECT_TRUE(pair.client.Write("x"));
  EXPECT_EQ(pair.server.Read(1), "x");
  EXPECT_GE(steady_clock::now() - start, milliseconds(30));
  ExpectExact(pair, 1'000'000);
}

TEST_F(FaultProxyTest, AThrottleHoldsForAllConnectionsTogetherAndSlowsTheWriterDown) {
  Pair one = Connect(), other = Connect();
  constexpr int64_t kRate = 2'000'000;
  proxy_->Set({.bytes_per_second = kRate});
  const auto start = steady_clock::now();
  ExpectExact(one, 200'000);
  ExpectExact(other, 200'000);
  const double seconds = std::chrono::duration<double>(steady_clock::now() - start).count();
  EXPECT_LE(400'000, kRate * (seconds + 0.02));
  // A rate of nearly nothing: the writer cannot hand over more than buffers hold.
  proxy_->Set({.bytes_per_second = 1});
  const timeval patience = {.tv_sec = 0, .tv_usec = 200'000};
  setsockopt(one.client.fd(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  EXPECT_FALSE(one.client.Write(Bytes(64 << 20, 5)));
}

TEST_F(FaultProxyTest, ABlackholeHoldsEverythingBackUntilItIsLifted) {
  Pair pair = Connect();
  proxy_->Set({.blackhole = true});
  EXPECT_TRUE(pair.client.Write("late"));
  Socket later = Socket::ConnectTo(proxy_->port());
  EXPECT_TRUE(later.open());
  EXPECT_TRUE(later.Write("later"));
  EXPECT_FALSE(pair.server.ReadableWithin(milliseconds(50)));
  EXPECT_FALSE(pair.client.ReadableWithin(milliseconds(1)));
  proxy_->Clear();
  EXPECT_EQ(pair.server.Read(4), "late");
  EXPECT_EQ(Socket(accept(listener_.fd(), nullptr, nullptr)).Read(5), "later");
  ExpectExact(pair, 100'000);
}

TEST_F(FaultProxyTest, ADropResetsBothEndsAndNewConnectionsAreTaken) {
  Pair pair = Connect();
  proxy_->Drop();
  EXPECT_EQ(pair.client.Read(1), "");
  EXPECT_TRUE(pair.client.was_reset());
  EXPECT_EQ(pair.server.Read(1), "");
  EXPECT_TRUE(pair.server.was_reset());
  EXPECT_EQ(proxy_->counters().open, 0);
  Pair next = Connect();
  ExpectExact(next, 100'000);
}

TEST_F(FaultProxyTest, RefusesNewConnectionsOnItsPortAndTakesThemAgain) {
  Pair pair = Connect();
  proxy_->Set({.refuse = true});
  EXPECT_FALSE(Socket::ConnectTo(proxy_->port()).open());
  ExpectExact(pair, 100'000);
  proxy_->Clear();
  Pair next = Connect();
  ExpectExact(next, 100'000);
}

TEST_F(FaultProxyTest, AHalfClosedConnectionStillBringsWhatTheServerSends) {
  Pair pair = Connect();
  EXPECT_TRUE(pair.client.Write("a"));
  EXPECT_EQ(pair.server.Read(1), "a");
  proxy_->HalfClose();
  EXPECT_TRUE(pair.client.Write("lost"));
  EXPECT_EQ(pair.server.Read(1), "");
  EXPECT_FALSE(pair.server.was_reset());
  EXPECT_TRUE(pair.server.Write("answer"));
  EXPECT_EQ(pair.client.Read(6), "answer");
  pair.server.Close();
  EXPECT_EQ(pair.client.Read(1), "");
}

TEST_F(FaultProxyTest, WhereNobodyListensConnectionsAreReset) {
  listener_.Close();
  Socket client = Socket::ConnectTo(proxy_->port());
  ASSERT_TRUE(client.open());
  EXPECT_EQ(client.Read(1), "");
  EXPECT_TRUE(client.was_reset());
}

TEST_F(FaultProxyTest, TheProgramObeysLinesAndEndsWithItsInput) {
  sockaddr_in address{};
  socklen_t size = sizeof(address);
  getsockname(listener_.fd(), reinterpret_cast<sockaddr*>(&address), &size);
  ChildProcess program({BinaryPath("fault_proxy"), "127.0.0.1:" + std::to_string(ntohs(address.sin_port))});
  const std::string said = program.WaitForLine("listening on ");
  const int port = std::stoi(said.substr(said.rfind(':') + 1));
  program.WriteStdin("refuse\n");
  program.WaitForLine("ok");
  EXPECT_FALSE(Socket::ConnectTo(port).open());
  program.WriteStdin("delay=1 jitter=1 rate=1000000\n");
  EXPECT_TRUE(Eventually([&] { return Socket::ConnectTo(port).open(); }));
  program.CloseStdin();
  EXPECT_EQ(program.Wait(), ExitStatus::Exited(0));
  const ProgramResult wrong = RunProgram({BinaryPath("fault_proxy"), "127.0.0.1:1"}, "frob=1\n");
  EXPECT_EQ(wrong.exit, ExitStatus::Exited(1));
  EXPECT_NE(wrong.err.find("'frob=1' is no fault"), std::string::npos) << wrong.err;
}

}  // namespace
}  // namespace tidepool::test
