// A TCP relay on loopback that flips one bit of what passes: of given bytes, wherever in the stream they come first.
// Thread-safe.
#ifndef TIDEPOOL_TESTS_RELIABILITY_FLIPPING_PROXY_H_
#define TIDEPOOL_TESTS_RELIABILITY_FLIPPING_PROXY_H_

#include <cstddef>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"

namespace tidepool::test {

class FlippingProxy {
 public:
  // Passes on to 127.0.0.1:`port`.
  explicit FlippingProxy(int port);
  // Closes all connections.
  ~FlippingProxy();
  FlippingProxy(const FlippingProxy&) = delete;
  FlippingProxy& operator=(const FlippingProxy&) = delete;

  int port() const { return port_; }

  // The next time that `bytes` pass in one piece, in either direction, bit `bit` of byte `at` of them is flipped.
  void Arm(std::string bytes, size_t at, int bit);
  // True: it has happened. Nothing is flipped any more.
  bool Disarm();

 private:
  void Accept();
  void Pump(int from, int to);
  void Flip(char* data, size_t size);

  const int target_port_;
  int listener_ = -1;
  int port_ = 0;
  Mutex mutex_;
  std::string wanted_ ABSL_GUARDED_BY(mutex_);  // empty: not armed
  size_t at_ ABSL_GUARDED_BY(mutex_) = 0;
  int bit_ ABSL_GUARDED_BY(mutex_) = 0;
  bool flipped_ ABSL_GUARDED_BY(mutex_) = false;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<int> sockets_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> pumps_ ABSL_GUARDED_BY(mutex_);
  std::thread acceptor_;
};

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_RELIABILITY_FLIPPING_PROXY_H_
