// A server that bench/cache starts: a process with a directory of its own, listening on loopback or a Unix socket.
#ifndef TIDEPOOL_BENCH_CACHE_SERVER_PROCESS_H_
#define TIDEPOOL_BENCH_CACHE_SERVER_PROCESS_H_

#include <memory>
#include <string>
#include <vector>

#include "tests/support/process.h"
#include "tests/support/temp_dir.h"

namespace tidepool::bench {

class ServerProcess {
 public:
  // Starts a program of ours that prints "listening on ADDRESS". `{listen}` and `{dir}` in an argument are replaced.
  ServerProcess(std::vector<std::string> argv, bool unix_socket);

  const std::string& address() const { return address_; }
  int pid() const { return process_->pid(); }

 private:
  test::TempDir dir_;
  std::string address_;
  std::unique_ptr<test::ChildProcess> process_;
};

}  // namespace tidepool::bench

#endif  // TIDEPOOL_BENCH_CACHE_SERVER_PROCESS_H_
