// Child processes for end-to-end tests: start, wait for readiness, kill, collect output. A ChildProcess owns its
// process (and the process group of it): the destructor kills what still runs, and the kernel kills it when the test
// itself dies. Failures throw std::runtime_error that carries the child's stderr; every wait is bounded, none sleeps
// for a fixed time.
//
//   ChildProcess cache({BinaryPath("tidepool-cache"), "--listen=127.0.0.1:0", "--port-file=" + file});
//   const int port = cache.WaitForPortFile(file);
//   cache.Kill();                                         // SIGKILL: the crash tests
//   EXPECT_EQ(other.Terminate(), ExitStatus::Exited(0));  // SIGTERM: the orderly end
#ifndef TIDEPOOL_TESTS_SUPPORT_PROCESS_H_
#define TIDEPOOL_TESTS_SUPPORT_PROCESS_H_

#include <sys/types.h>

#include <chrono>
#include <map>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/mutex.h"

namespace tidepool::test {

// Generous: sanitizer builds on two busy cores. A wait ends as soon as its event, or the end of the child, is seen.
inline constexpr std::chrono::seconds kProcessTimeout{600};

// How a process ended: its exit code, or the signal that ended it (the other one is 0).
struct ExitStatus {
  int code = 0;
  int signal = 0;

  static ExitStatus Exited(int code) { return {code, 0}; }
  static ExitStatus Signaled(int signal) { return {0, signal}; }
  friend bool operator==(const ExitStatus&, const ExitStatus&) = default;
  friend std::ostream& operator<<(std::ostream& out, const ExitStatus& status) {
    return status.signal != 0 ? out << "killed by signal " << status.signal : out << "exited with " << status.code;
  }
};

// Path of a binary of this build: all of them, tests too, lie in one folder.
std::string BinaryPath(const std::string& name);

// Methods may be called from several threads. The thread that constructs it must outlive the child (PR_SET_PDEATHSIG).
class ChildProcess {
 public:
  // Starts argv[0] (a path, or a name looked up in PATH) with `environment` added to this process's own.
  explicit ChildProcess(std::vector<std::string> argv, const std::map<std::string, std::string>& environment = {});
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  pid_t pid() const { return pid_; }

  // The first whole line of stdout that contains `text`, also one written before the call.
  std::string WaitForLine(std::string_view text, std::chrono::milliseconds timeout = kProcessTimeout);
  // The port in a file that the child writes: a decimal number and a newline.
  int WaitForPortFile(const std::string& path, std::chrono::milliseconds timeout = kProcessTimeout);

  void WriteStdin(std::string_view text);
  void CloseStdin();

  // Sends a signal to the child alone; nothing happens when it has ended.
  void Signal(int signal);
  // Waits for the end and for the rest of the output.
  ExitStatus Wait(std::chrono::milliseconds timeout = kProcessTimeout);
  ExitStatus Kill();       // SIGKILL to the whole group, then Wait
  ExitStatus Terminate();  // SIGTERM to the child, then Wait
  bool Running() const;

  // Everything written so far.
  std::string Stdout() const;
  std::string Stderr() const;

 private:
  void Collect(int fd, std::string* into);
  void Reap();
  [[noreturn]] void Fail(const std::string& what) const;

  std::vector<std::string> argv_;
  pid_t pid_ = -1;
  mutable Mutex mutex_;
  CondVar changed_;  // output, end of output, exit
  int stdin_fd_ ABSL_GUARDED_BY(mutex_) = -1;
  int open_outputs_ ABSL_GUARDED_BY(mutex_) = 2;
  std::string stdout_ ABSL_GUARDED_BY(mutex_);
  std::string stderr_ ABSL_GUARDED_BY(mutex_);
  std::optional<ExitStatus> exit_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_;  // two that collect output, one that waits for the end
};

struct ProgramResult {
  ExitStatus exit;
  std::string out, err;
};

// Runs a program to its end.
ProgramResult RunProgram(std::vector<std::string> argv, std::string_view standard_input = {},
                         const std::map<std::string, std::string>& environment = {},
                         std::chrono::milliseconds timeout = kProcessTimeout);

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_SUPPORT_PROCESS_H_
