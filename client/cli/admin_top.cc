// tidepool admin top: a live view of cache pods and workers.
#include <sys/ioctl.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <string>
#include <utility>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "client/cli/admin_commands.h"
#include "client/cli/top_view.h"
#include "client/generation_client.h"

ABSL_FLAG(absl::Duration, interval, absl::Seconds(2), "top: between two looks, 100ms to 1h");
ABSL_FLAG(bool, once, false, "top: one page, of the first interval, and no control characters");

namespace tidepool::cli {
namespace {

volatile std::sig_atomic_t interrupted = 0;

TopLook Look(const AdminTarget& target) {
  TopLook look;
  for (const std::string& pod : target.pods) {
    AdminClient client = target.Client(pod);
    absl::StatusOr<v1::GetStatsResponse> stats = client.Stats();
    TopLook::Pod& to = look.pods.emplace_back();
    to.address = pod;
    to.status = stats.status();
    if (stats.ok()) to.stats = *std::move(stats);
  }
  if (WorkerIsGiven()) {
    for (const auto& worker : absl::StrSplit(WorkerAddress(), ',')) {
      GenerationClient client(std::string(worker), target.security);
      absl::StatusOr<v1::GetWorkerStatsResponse> stats = client.GetWorkerStats();
      TopLook::Worker& to = look.workers.emplace_back();
      to.address = std::string(worker);
      to.status = stats.status();
      if (stats.ok()) to.stats = *std::move(stats);
    }
  }
  look.time = absl::Now();
  return look;
}

// Nobody answers.
absl::Status FailureOf(const TopLook& look) {
  absl::Status first;
  for (const TopLook::Pod& pod : look.pods) {
    if (pod.status.ok()) return absl::OkStatus();
    first.Update(pod.status);
  }
  for (const TopLook::Worker& worker : look.workers) {
    if (worker.status.ok()) return absl::OkStatus();
  }
  return first;
}

int TerminalLines() {
  winsize size{};
  return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 ? size.ws_row : 24;
}

void Sleep(absl::Duration time) {
  const absl::Time until = absl::Now() + time;
  // A signal ends the sleep early.
  while (interrupted == 0 && absl::Now() < until) usleep(50'000);
}

}  // namespace

int AdminTop(const AdminTarget& target) {
  const absl::Duration interval = absl::GetFlag(FLAGS_interval);
  if (interval < absl::Milliseconds(100) || interval > absl::Hours(1)) {
    return UsageError(absl::StrCat("--interval: ", absl::FormatDuration(interval), " is not in 100ms to 1h"));
  }
  const bool once = absl::GetFlag(FLAGS_once), terminal = isatty(STDOUT_FILENO) != 0 && !once && !Json();
  std::signal(SIGINT, [](int) { interrupted = 1; });
  std::signal(SIGTERM, [](int) { interrupted = 1; });
  TopLook before = Look(target);
  if (const absl::Status failure = FailureOf(before); !failure.ok()) return FailCache(failure);
  if (terminal) std::fputs("\x1b[?25l\x1b[2J", stdout);  // no cursor, an empty screen
  while (interrupted == 0) {
    Sleep(interval);
    if (interrupted != 0) break;
    TopLook now = Look(target);
    if (Json()) {
      std::fputs(TopJson(before, now).c_str(), stdout);
    } else {
      const std::string page = TopPage(before, now, terminal ? TerminalLines() - 1 : 0);
      if (terminal) {
        // Over the last page, each line to its end, then what is below: no flicker.
        std::string screen = "\x1b[H";
        for (const auto& line : absl::StrSplit(page, '\n')) absl::StrAppend(&screen, line, "\x1b[K\r\n");
        absl::StrAppend(&screen, "\x1b[J");
        std::fputs(screen.c_str(), stdout);
      } else {
        std::fputs(page.c_str(), stdout);
        if (!once) std::fputs("\n", stdout);
      }
    }
    std::fflush(stdout);
    before = std::move(now);
    if (once) break;
  }
  if (terminal) std::fputs("\x1b[?25h", stdout);
  return kOk;
}

}  // namespace tidepool::cli
