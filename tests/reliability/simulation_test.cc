// Hundreds of seeds of the simulated storage (simulation.h), each in a process of its own, so that no run depends on
// those before it. A seed that fails is printed with the end of its history and the command that runs it again.
//   TIDEPOOL_SIMULATION_SEEDS   default 300
//   TIDEPOOL_SIMULATION_SEED    the first; default 1
#include "tests/reliability/simulation.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <string>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "tests/support/paths.h"

namespace tidepool {
namespace {

using test::SimulationReport;
static_assert(std::is_trivially_copyable_v<test::SimulationCounts>);

constexpr size_t kAtOnce = 2;       // processes
constexpr int kShownSeeds = 10;     // that fail, then it ends
constexpr size_t kShown = 20;       // lines of a history; all of it where one seed is run
constexpr unsigned kSeconds = 120;  // of one seed, which takes a fraction of one

uint64_t FromEnvironment(const char* name, uint64_t fallback) {
  return std::stoull(test::EnvironmentOr(name, std::to_string(fallback)));
}

uint64_t Seeds() { return FromEnvironment("TIDEPOOL_SIMULATION_SEEDS", 300); }

// One seed that runs in a child of this process.
class SeedRun {
 public:
  explicit SeedRun(uint64_t seed) : seed_(seed) {
    int ends[2];
    if (pipe(ends) != 0) ADD_FAILURE() << "pipe: " << std::strerror(errno);
    child_ = fork();
    if (child_ == 0) {
      close(ends[0]);
      alarm(kSeconds);
      SetLogLevel(Seeds() == 1 ? LogLevel::kWarning : LogLevel::kError);
      const SimulationReport report = test::Simulate(seed, Seeds() == 1 ? SIZE_MAX : kShown);
      std::string bytes(reinterpret_cast<const char*>(&report.counts), sizeof report.counts);
      bytes += report.failure;
      for (std::string_view left = bytes; !left.empty();) {
        const ssize_t written = write(ends[1], left.data(), left.size());
        if (written <= 0) _exit(1);
        left.remove_prefix(static_cast<size_t>(written));
      }
      _exit(0);
    }
    close(ends[1]);
    out_ = ends[0];
  }

  SimulationReport Wait() {
    std::string bytes;
    char buffer[4096];
    for (ssize_t got = 0; (got = read(out_, buffer, sizeof buffer)) > 0;)
      bytes.append(buffer, static_cast<size_t>(got));
    close(out_);
    int status = 0;
    waitpid(child_, &status, 0);
    SimulationReport report;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || bytes.size() < sizeof report.counts) {
      report.failure = absl::StrCat("seed ", seed_, ": the process ended with status ", status,
                                    WIFSIGNALED(status) ? absl::StrCat(", signal ", WTERMSIG(status)) : "");
      return report;
    }
    std::memcpy(&report.counts, bytes.data(), sizeof report.counts);
    report.failure = bytes.substr(sizeof report.counts);
    return report;
  }

 private:
  const uint64_t seed_;
  pid_t child_ = -1;
  int out_ = -1;
};

TEST(SimulationTest, NothingThatWasAcknowledgedIsLostAndNothingIsReadThatWasNotWritten) {
  const uint64_t first = FromEnvironment("TIDEPOOL_SIMULATION_SEED", 1);
  const uint64_t seeds = Seeds();
  test::SimulationCounts sum;
  std::deque<SeedRun> runs;
  int failed = 0;
  for (uint64_t seed = first, started = first; seed < first + seeds && failed < kShownSeeds; ++seed) {
    while (started < first + seeds && runs.size() < kAtOnce) runs.emplace_back(started++);
    const SimulationReport report = runs.front().Wait();
    runs.pop_front();
    failed += report.failure.empty() ? 0 : 1;
    EXPECT_EQ(report.failure, "") << "again: TIDEPOOL_SIMULATION_SEED=" << seed
                                  << " TIDEPOOL_SIMULATION_SEEDS=1 simulation_test";
    sum += report.counts;
  }
  for (SeedRun& run : runs) run.Wait();
  std::printf("%" PRIu64 " seeds from %" PRIu64 ": %s\n", seeds, first, sum.ToString().c_str());
  if (seeds < 100) return;
  // A simulation in which nothing goes wrong shows nothing.
  const int64_t count = static_cast<int64_t>(seeds);
  EXPECT_GT(sum.repeated, count);
  EXPECT_GT(sum.lost_messages, count);
  EXPECT_GT(sum.power_losses, count / 2);
  EXPECT_GT(sum.kills, count / 4);
  EXPECT_GT(sum.orderly_restarts, count / 4);
  EXPECT_GT(sum.failed_writes, count);
  EXPECT_GT(sum.failed_reads, count / 4);
  EXPECT_GT(sum.expired, count);
}

// But for one in a hundred or so, in which two threads of the tiers meet (docs/reliability.md).
TEST(SimulationTest, TheSameSeedGivesTheSameHistory) {
  constexpr int kCompared = 18;
  int same = 0;
  for (uint64_t seed = 1; seed <= kCompared; ++seed) {
    SeedRun one(seed), other(seed);
    same += one.Wait().counts.digest == other.Wait().counts.digest ? 1 : 0;
  }
  EXPECT_GE(same, kCompared - 3);
}

}  // namespace
}  // namespace tidepool
