// A TCP proxy between two real processes that passes every byte unchanged, in order, and as late, as slowly or not at
// all as a test says. Faults may be changed at any time and hold for open connections, too. One thread does it all;
// buffers are bounded, so who writes to a slow proxy is slowed down. Failures of its own sockets throw
// std::runtime_error from the constructor.
//
//   FaultProxy proxy(cache_address);                    // the worker is told --cache=proxy.address()
//   proxy.Set({.bytes_per_second = 1'000'000});
//   proxy.Set({.blackhole = true});                     // packets are lost: nothing passes, nothing is closed
//   proxy.Drop();                                       // all connections are reset
#ifndef TIDEPOOL_TESTS_SUPPORT_FAULT_PROXY_H_
#define TIDEPOOL_TESTS_SUPPORT_FAULT_PROXY_H_

#include <chrono>
#include <cstdint>
#include <list>
#include <memory>
#include <random>
#include <string>
#include <thread>

#include "base/mutex.h"

namespace tidepool::test {

class FaultProxy {
 public:
  struct Faults {
    std::chrono::milliseconds delay{0};   // of each direction: what comes in leaves so much later
    std::chrono::milliseconds jitter{0};  // up to so much more, drawn for each piece that is read; order is kept
    int64_t bytes_per_second = 0;         // of each direction, all connections together; 0: unlimited
    bool blackhole = false;               // nothing passes; new connections are taken and nothing passes there, either
    bool refuse = false;                  // new connections are refused; open ones go on
    friend bool operator==(const Faults&, const Faults&) = default;
  };
  struct Counters {
    int64_t connections = 0;  // taken since the start
    int open = 0;
    int64_t bytes_to_server = 0, bytes_to_client = 0;  // that have left the proxy
  };

  // target: IPv4 address and port, where somebody listens or will. seed: of the jitter.
  explicit FaultProxy(const std::string& target, uint64_t seed = 1);
  ~FaultProxy();
  FaultProxy(const FaultProxy&) = delete;
  FaultProxy& operator=(const FaultProxy&) = delete;

  int port() const { return port_; }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

  // In place of all that was set before; holds when it returns.
  void Set(const Faults& faults);
  void Clear() { Set(Faults()); }
  // Resets all connections: both ends see an error, and what was under way is gone.
  void Drop();
  // The servers of all open connections see the end of the stream after what has been passed on; what clients send from
  // then on is thrown away, what servers send still comes.
  void HalfClose();
  Counters counters() const;

 private:
  struct Connection;
  struct Pipe;
  using Clock = std::chrono::steady_clock;
  // What may leave in one direction at the set rate.
  struct Allowance {
    double bytes = 0;
    Clock::time_point filled;
  };

  enum class State { kGoesOn, kOver, kBroken };

  void Run();
  void Wake();
  void Accept() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Refill(Clock::time_point now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Reads what has come, and writes what is due.
  State Move(Connection& connection, Clock::time_point now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // False: an end has gone.
  bool Read(Pipe& pipe, Clock::time_point now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool Write(Pipe& pipe, Clock::time_point now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // When the pipe's first piece may leave; max: nothing is there, or only the socket can say.
  Clock::time_point NextWrite(const Pipe& pipe) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string target_host_;
  const int target_port_;
  int port_ = 0;
  int place_holder_ = -1;  // keeps the port while nobody listens on it
  int wake_ = -1;          // eventfd
  mutable Mutex mutex_;
  int listener_ ABSL_GUARDED_BY(mutex_) = -1;
  Faults faults_ ABSL_GUARDED_BY(mutex_);
  Counters counters_ ABSL_GUARDED_BY(mutex_);
  Allowance allowance_[2] ABSL_GUARDED_BY(mutex_);  // to the server, to the client
  std::mt19937_64 random_ ABSL_GUARDED_BY(mutex_);
  std::list<Connection> connections_ ABSL_GUARDED_BY(mutex_);
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_SUPPORT_FAULT_PROXY_H_
