#include "tests/reliability/simulated_env.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "tests/support/eventually.h"

namespace tidepool::test {
namespace {

constexpr auto kBetweenLooks = std::chrono::microseconds(50);

// The word after a name in /proc/PID/status.
std::string_view Field(std::string_view status, std::string_view name) {
  const size_t at = status.find(name);
  if (at == std::string_view::npos) return {};
  const size_t first = status.find_first_not_of(" \t", at + name.size());
  return status.substr(first, status.find_first_of(" \t\n", first) - first);
}

}  // namespace

SimulatedEnv::SimulatedEnv(const std::shared_ptr<SimulatedDisk>& disk)
    : EnvWrapper(rocksdb::Env::Default()), thread_([this] { Run(); }) {
  file_system_ = disk;
}

SimulatedEnv::~SimulatedEnv() {
  {
    MutexLock lock(&mutex_);
    stop_ = true;
    changed_.SignalAll();
  }
  thread_.join();
}

void SimulatedEnv::Settle(absl::FunctionRef<bool()> holds) {
  settling_ = gettid();
  while (!holds()) Tick(kBetweenLooks);
  {
    MutexLock lock(&mutex_);
    while (!jobs_.empty() || running_) changed_.Wait(&mutex_);
  }
  settling_ = 0;
}

void SimulatedEnv::Schedule(void (*function)(void*), void* argument, Priority, void* tag, void (*unschedule)(void*)) {
  MutexLock lock(&mutex_);
  jobs_.push_back({.function = function, .argument = argument, .tag = tag, .unschedule = unschedule});
  changed_.SignalAll();
}

int SimulatedEnv::UnSchedule(void* tag, Priority) {
  std::vector<Job> taken;
  {
    MutexLock lock(&mutex_);
    std::erase_if(jobs_, [&](const Job& job) {
      if (job.tag != tag) return false;
      taken.push_back(job);
      return true;
    });
    changed_.SignalAll();
  }
  for (const Job& job : taken) {
    if (job.unschedule != nullptr) job.unschedule(job.argument);
  }
  return static_cast<int>(taken.size());
}

unsigned int SimulatedEnv::GetThreadPoolQueueLen(Priority) const {
  MutexLock lock(&mutex_);
  return static_cast<unsigned int>(jobs_.size());
}

std::optional<SimulatedEnv::Waits> SimulatedEnv::AllBlocked() const {
  Waits waits;
  std::error_code error;  // threads come and go
  for (std::filesystem::directory_iterator it("/proc/self/task", error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().filename();
    pid_t thread = 0;
    std::from_chars(name.data(), name.data() + name.size(), thread);
    if (thread == gettid() || thread == settling_) continue;
    char status[4096];
    const int file = open((it->path() / "status").c_str(), O_RDONLY | O_CLOEXEC);
    const ssize_t size = file < 0 ? 0 : read(file, status, sizeof status);
    if (file >= 0) close(file);
    const std::string_view text(status, static_cast<size_t>(std::max<ssize_t>(size, 0)));
    if (Field(text, "\nState:") != "S") return std::nullopt;
    const std::string_view count = Field(text, "\nvoluntary_ctxt_switches:");
    std::from_chars(count.data(), count.data() + count.size(), waits[thread]);
  }
  if (error) return std::nullopt;
  return waits;
}

// A thread that only waits for another's lock is blocked in one look, and not in the next.
void SimulatedEnv::AwaitOthers() const {
  std::optional<Waits> before = AllBlocked();
  while (true) {
    Tick(kBetweenLooks);
    std::optional<Waits> now = AllBlocked();
    if (now.has_value() && now == before) return;
    before = std::move(now);
  }
}

void SimulatedEnv::Run() {
  while (true) {
    {
      MutexLock lock(&mutex_);
      while (!stop_ && jobs_.empty()) changed_.Wait(&mutex_);
      if (stop_) return;
    }
    AwaitOthers();
    Job job;
    {
      MutexLock lock(&mutex_);
      if (jobs_.empty()) continue;  // taken back
      job = jobs_.front();
      jobs_.erase(jobs_.begin());
      running_ = true;
    }
    job.function(job.argument);
    MutexLock lock(&mutex_);
    running_ = false;
    changed_.SignalAll();
  }
}

}  // namespace tidepool::test
