#include "tests/support/process.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <utility>

namespace tidepool::test {
namespace {

using Clock = std::chrono::steady_clock;

struct Pipe {
  int read_end, write_end;
};

Pipe MakePipe() {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) throw std::runtime_error(std::string("pipe2: ") + strerror(errno));
  return {ends[0], ends[1]};
}

std::vector<char*> Pointers(std::vector<std::string>* strings) {
  std::vector<char*> pointers;
  pointers.reserve(strings->size() + 1);
  for (std::string& text : *strings) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

std::vector<std::string> MergedEnvironment(const std::map<std::string, std::string>& added) {
  std::vector<std::string> merged;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    if (added.count(text.substr(0, text.find('='))) == 0) merged.push_back(text);
  }
  for (const auto& [name, value] : added) merged.push_back(name + "=" + value);
  return merged;
}

// Between fork and exec: only calls that are safe in the child of a threaded process.
[[noreturn]] void Exec(const Pipe& in, const Pipe& out, const Pipe& err, pid_t parent, char** argv, char** envp) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);  // the parent died before prctl
  dup2(in.read_end, STDIN_FILENO);
  dup2(out.write_end, STDOUT_FILENO);
  dup2(err.write_end, STDERR_FILENO);
  environ = envp;
  execvp(argv[0], argv);
  constexpr char kMessage[] = "cannot execute the program\n";
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, kMessage, sizeof(kMessage) - 1);
  _exit(127);
}

}  // namespace

std::string BinaryPath(const std::string& name) {
  std::array<char, PATH_MAX> self{};
  const ssize_t size = readlink("/proc/self/exe", self.data(), self.size());
  if (size <= 0) throw std::runtime_error("cannot read /proc/self/exe");
  const std::string path(self.data(), static_cast<size_t>(size));
  return path.substr(0, path.rfind('/') + 1) + name;
}

ChildProcess::ChildProcess(std::vector<std::string> argv, const std::map<std::string, std::string>& environment)
    : argv_(std::move(argv)) {
  if (argv_.empty()) throw std::runtime_error("ChildProcess: argv is empty");
  signal(SIGPIPE, SIG_IGN);  // writing to a child that has ended is an error to report, not the end of the test
  std::vector<std::string> variables = MergedEnvironment(environment);
  const std::vector<char*> argv_pointers = Pointers(&argv_), envp = Pointers(&variables);
  const Pipe in = MakePipe(), out = MakePipe(), err = MakePipe();
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ < 0) throw std::runtime_error(std::string("fork: ") + strerror(errno));
  if (pid_ == 0) Exec(in, out, err, parent, const_cast<char**>(argv_pointers.data()), const_cast<char**>(envp.data()));
  setpgid(pid_, pid_);  // here too, so that the group exists whichever process runs first
  close(in.read_end);
  close(out.write_end);
  close(err.write_end);
  {
    MutexLock lock(&mutex_);
    stdin_fd_ = in.write_end;
    threads_.emplace_back([this, fd = out.read_end] { Collect(fd, &stdout_); });
    threads_.emplace_back([this, fd = err.read_end] { Collect(fd, &stderr_); });
    threads_.emplace_back([this] { Reap(); });
  }
}

ChildProcess::~ChildProcess() {
  if (Running()) kill(-pid_, SIGKILL);
  CloseStdin();
  threads_.back().join();  // the child has been reaped
  kill(-pid_, SIGKILL);    // what it left behind in its group would keep the pipes open
  for (size_t i = 0; i + 1 < threads_.size(); ++i) threads_[i].join();
}

void ChildProcess::Collect(int fd, std::string* into) {
  std::array<char, 4096> buffer;
  for (;;) {
    const ssize_t size = read(fd, buffer.data(), buffer.size());
    if (size < 0 && errno == EINTR) continue;
    MutexLock lock(&mutex_);
    if (size <= 0) {
      --open_outputs_;
      changed_.SignalAll();
      break;
    }
    into->append(buffer.data(), static_cast<size_t>(size));
    changed_.SignalAll();
  }
  close(fd);
}

void ChildProcess::Reap() {
  // WNOWAIT leaves the zombie until the mutex is held: a pid that Signal() uses is never that of another process.
  siginfo_t info{};
  while (waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOWAIT) != 0 && errno == EINTR) {
  }
  MutexLock lock(&mutex_);
  int status = 0;
  waitpid(pid_, &status, 0);
  exit_ = WIFSIGNALED(status) ? ExitStatus::Signaled(WTERMSIG(status)) : ExitStatus::Exited(WEXITSTATUS(status));
  changed_.SignalAll();
}

std::string ChildProcess::WaitForLine(std::string_view text, std::chrono::milliseconds timeout) {
  const Clock::time_point deadline = Clock::now() + timeout;
  MutexLock lock(&mutex_);
  for (bool in_time = true;;) {
    size_t start = 0;
    for (size_t end; (end = stdout_.find('\n', start)) != std::string::npos; start = end + 1) {
      const std::string_view line = std::string_view(stdout_).substr(start, end - start);
      if (line.find(text) != std::string_view::npos) return std::string(line);
    }
    if (exit_.has_value() && open_outputs_ == 0) Fail("ended without the line '" + std::string(text) + "'");
    if (!in_time) Fail("wrote no line '" + std::string(text) + "' in time");
    in_time = changed_.WaitUntil(&mutex_, deadline);
  }
}

int ChildProcess::WaitForPortFile(const std::string& path, std::chrono::milliseconds timeout) {
  const Clock::time_point deadline = Clock::now() + timeout;
  MutexLock lock(&mutex_);
  for (;;) {
    std::ifstream file(path);
    std::string line;
    if (std::getline(file, line) && !file.eof()) return std::stoi(line);  // eof: the newline is not there yet
    if (exit_.has_value()) Fail("ended without writing " + path);
    if (Clock::now() >= deadline) Fail("did not write " + path + " in time");
    // Files give no event here: look again each 5 ms, at once when the child writes something or ends.
    changed_.WaitUntil(&mutex_, Clock::now() + std::chrono::milliseconds(5));
  }
}

void ChildProcess::WriteStdin(std::string_view text) {
  int fd;
  {
    MutexLock lock(&mutex_);
    fd = stdin_fd_;
  }
  while (!text.empty()) {
    const ssize_t size = write(fd, text.data(), text.size());
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) throw std::runtime_error(argv_[0] + ": writing to its stdin: " + strerror(errno));
    text.remove_prefix(static_cast<size_t>(size));
  }
}

void ChildProcess::CloseStdin() {
  MutexLock lock(&mutex_);
  if (stdin_fd_ >= 0) close(stdin_fd_);
  stdin_fd_ = -1;
}

void ChildProcess::Signal(int signal) {
  MutexLock lock(&mutex_);
  if (!exit_.has_value()) kill(pid_, signal);
}

ExitStatus ChildProcess::Wait(std::chrono::milliseconds timeout) {
  const Clock::time_point deadline = Clock::now() + timeout;
  MutexLock lock(&mutex_);
  for (bool in_time = true; !exit_.has_value() || open_outputs_ > 0;) {
    if (!in_time) Fail("did not end in time");
    in_time = changed_.WaitUntil(&mutex_, deadline);
  }
  return *exit_;
}

ExitStatus ChildProcess::Kill() {
  {
    MutexLock lock(&mutex_);
    if (!exit_.has_value()) kill(-pid_, SIGKILL);
  }
  return Wait();
}

ExitStatus ChildProcess::Terminate() {
  Signal(SIGTERM);
  return Wait();
}

bool ChildProcess::Running() const {
  MutexLock lock(&mutex_);
  return !exit_.has_value();
}

std::string ChildProcess::Stdout() const {
  MutexLock lock(&mutex_);
  return stdout_;
}

std::string ChildProcess::Stderr() const {
  MutexLock lock(&mutex_);
  return stderr_;
}

void ChildProcess::Fail(const std::string& what) const ABSL_NO_THREAD_SAFETY_ANALYSIS {
  std::ostringstream message;
  message << argv_[0] << " (pid " << pid_ << ") " << what;
  if (exit_.has_value()) message << "; it " << *exit_;
  message << "\n--- stdout\n" << stdout_ << "\n--- stderr\n" << stderr_;
  throw std::runtime_error(message.str());
}

ProgramResult RunProgram(std::vector<std::string> argv, std::string_view standard_input,
                         const std::map<std::string, std::string>& environment, std::chrono::milliseconds timeout) {
  ChildProcess child(std::move(argv), environment);
  child.WriteStdin(standard_input);
  child.CloseStdin();
  ProgramResult result;
  result.exit = child.Wait(timeout);
  result.out = child.Stdout();
  result.err = child.Stderr();
  return result;
}

}  // namespace tidepool::test
