// Real servers of Debian's package redis-tools on loopback: one by itself, or a cluster. Failures to start throw
// std::runtime_error with the server's output.
#ifndef TIDEPOOL_TESTS_CACHESERVICE_RESP_REDIS_SERVERS_H_
#define TIDEPOOL_TESTS_CACHESERVICE_RESP_REDIS_SERVERS_H_

#include <signal.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/types/span.h"
#include "cacheservice/resp/connection.h"
#include "cacheservice/resp/reply.h"
#include "cacheservice/resp/server_url.h"
#include "tests/support/process.h"
#include "tests/support/temp_dir.h"

namespace tidepool::test {

class RedisServer {
 public:
  struct Options {
    std::vector<std::string> arguments;  // beside those that every test wants: loopback, nothing on disk
    RespLogin login;                     // of Call; with TLS the server speaks nothing else
    bool cluster = false;
  };
  RedisServer() : RedisServer(Options()) {}
  explicit RedisServer(Options options);

  void Start();  // again, on the port it had, without data
  void Kill();   // SIGKILL
  void Pause() { process_->Signal(SIGSTOP); }
  void Resume() { process_->Signal(SIGCONT); }

  int port() const { return port_; }
  int pid() const { return process_->pid(); }
  int bus_port() const { return bus_port_; }
  RespEndpoint endpoint() const { return {.host = "127.0.0.1", .port = port_}; }
  std::string url() const { return "redis://" + endpoint().ToString(); }

  // The reply to a command. Throws when there is none.
  RespReply Call(std::vector<std::string_view> arguments);

 private:
  void StartOn(int port);

  const Options options_;
  TempDir dir_;
  int port_ = 0, bus_port_ = 0;
  std::unique_ptr<ChildProcess> process_;
  std::unique_ptr<RespConnection> connection_;
};

// Masters with the slots in equal parts, and a replica for each of the first `replicas` of them. Fails over within some
// two seconds.
class RedisCluster {
 public:
  RedisCluster(int masters, int replicas);

  RedisServer& node(int index) { return *nodes_[static_cast<size_t>(index)]; }  // masters first
  std::string id(int index);
  std::string url() const;  // of all nodes
  std::vector<RespEndpoint> endpoints() const;

  // The master that has the slot, as the node `asked` says.
  int OwnerOf(uint16_t slot, int asked);
  // Begins to move a slot, moves its keys, and says whose it is. Between the first and the last, the slot's keys are on
  // either side and commands are answered by ASK.
  void BeginMove(uint16_t slot, int from, int to);
  void MoveKeys(uint16_t slot, int from, int to, int most_keys);
  void EndMove(uint16_t slot, int to);

 private:
  bool KnowEachOther();
  bool Ok();

  const int masters_;
  std::vector<std::unique_ptr<RedisServer>> nodes_;
};

// A key and a certificate for 127.0.0.1 and localhost that signs itself: the file of who signs, too.
struct Certificate {
  explicit Certificate(const TempDir& dir, const std::string& name = "redis");
  std::string cert_file, key_file;
};

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_CACHESERVICE_RESP_REDIS_SERVERS_H_
