// What workers and cache pods say when they are asked.
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/byte_size.h"
#include "client/admin_client.h"
#include "client/check_health.h"
#include "client/cli/finding.h"
#include "client/generation_client.h"

namespace tidepool::cli {
namespace {

using Grade = Finding::Grade;

constexpr absl::Duration kPatience = absl::Seconds(5);
constexpr double kMostClockSeconds = 2;

void Add(Findings* findings, Grade grade, const std::string& who, const std::string& what, std::string found,
         std::string advice = "") {
  findings->push_back({grade, absl::StrCat(who, ": ", what), std::move(found), std::move(advice)});
}

// False: nobody there, and there is no more to ask.
bool CheckServing(const std::string& who, const std::string& address,
                  const std::shared_ptr<const ChannelSecurity>& security, Findings* findings) {
  const absl::Status health = CheckHealth(address, security, absl::Now() + kPatience);
  if (health.ok() || absl::IsFailedPrecondition(health)) {
    Add(findings, health.ok() ? Grade::kOk : Grade::kWrong, who, "health", health.ok() ? "serving" : "not serving",
        health.ok() ? "" : "it is starting or ending; its log says which");
    return true;
  }
  Add(findings, Grade::kWrong, who, "health", std::string(health.message()),
      absl::IsUnavailable(health) || absl::IsDeadlineExceeded(health)
          ? "is the process running, its --listen this address, and TLS (--tls-ca) on both sides or on none?"
          : "the token or certificate is not one that its access file knows");
  return false;
}

void CheckRemote(const std::string& who, const v1::RemoteTierStats& remote, Findings* findings) {
  const bool left = remote.breaker() == v1::RemoteTierStats::BREAKER_OPEN;
  Add(findings, left ? Grade::kWarning : Grade::kOk, who, "remote tier", left ? remote.last_failure() : "in use",
      left ? "look after the engine; it is asked again by itself" : "");
}

void CheckPod(const std::string& who, const v1::GetStatsResponse& stats, double clock_seconds, Findings* findings) {
  const bool other = stats.version() != TIDEPOOL_VERSION;
  Add(findings, other ? Grade::kWarning : Grade::kOk, who, "version", stats.version(),
      other ? absl::StrCat("this is ", TIDEPOOL_VERSION, ": upgrade one of them") : "");
  Add(findings, stats.disk_writable() ? Grade::kOk : Grade::kWrong, who, "disk",
      absl::StrCat(FormatByteSize(stats.disk().bytes()), " of ", FormatByteSize(stats.disk().limit_bytes()),
                   stats.disk_writable() ? "" : ", not writable"),
      stats.disk_writable() ? "" : "the volume is full or read-only: make room; it goes on by itself");
  const uint64_t corrupt = stats.memory().corrupt() + stats.disk().corrupt() + stats.remote().corrupt();
  Add(findings, corrupt == 0 ? Grade::kOk : Grade::kWarning, who, "damaged values", absl::StrCat(corrupt, " found"),
      corrupt == 0 ? "" : "check disk and memory of that machine: tidepool admin scrub");
  if (stats.dropped() > 0) {
    Add(findings, Grade::kWarning, who, "dropped values", absl::StrCat(stats.dropped(), " could not be written"),
        "a faster disk, or more --memory-bytes");
  }
  if (stats.has_remote()) CheckRemote(who, stats.remote(), findings);
  if (stats.draining()) {
    Add(findings, Grade::kWarning, who, "draining", "it takes nothing new", "end it, or restart it");
  }
  const bool off = std::abs(clock_seconds) > kMostClockSeconds;
  Add(findings, off ? Grade::kWarning : Grade::kOk, who, "clock",
      absl::StrCat("within ", static_cast<int64_t>(std::ceil(std::abs(clock_seconds))), " s of this machine's"),
      off ? "certificates, pins and times of sessions go by it: set it by NTP" : "");
}

void CheckPodsOf(const std::string& who, const v1::GetWorkerStatsResponse& stats, Findings* findings) {
  for (const v1::CachePodStats& pod : stats.cache_pods()) {
    const bool down = pod.state() == v1::CachePodStats::STATE_DOWN;
    Add(findings, down ? Grade::kWrong : Grade::kOk, who, absl::StrCat("its pod ", pod.name()),
        down ? "down" : "reached", down ? "is it reached from the worker's machine, and does it know the worker?" : "");
  }
  if (stats.offload_failures() > 0) {
    Add(findings, Grade::kWarning, who, "blocks not stored", absl::StrCat(stats.offload_failures()),
        "is the cache service full, away or too slow? The worker's log says why");
  }
  if (stats.lost_rows() > 0) {
    Add(findings, Grade::kWarning, who, "lost rows", absl::StrCat(stats.lost_rows()),
        "answers were computed without them: larger --disk-bytes, or a cache that is there");
  }
}

}  // namespace

void CheckRunning(const std::vector<std::string>& workers, const std::vector<std::string>& pods,
                  const std::shared_ptr<const ChannelSecurity>& security, Findings* findings) {
  for (const std::string& address : pods) {
    const std::string who = absl::StrCat("cache ", address);
    if (!CheckServing(who, address, security, findings)) continue;
    const absl::Time asked = absl::Now();
    const absl::StatusOr<v1::GetStatsResponse> stats = AdminClient(address, "", security).Stats();
    if (!stats.ok()) {
      Add(findings, Grade::kWrong, who, "stats", std::string(stats.status().message()),
          "it needs an admin of all tenants (--token-file), and an address of a cache");
      continue;
    }
    const absl::Time middle = asked + (absl::Now() - asked) / 2;
    CheckPod(who, *stats, absl::ToDoubleSeconds(absl::FromUnixMillis(stats->unix_ms()) - middle), findings);
  }
  std::string fingerprint;
  for (const std::string& address : workers) {
    const std::string who = absl::StrCat("worker ", address);
    if (!CheckServing(who, address, security, findings)) continue;
    GenerationClient client(address, security);
    const absl::StatusOr<v1::GetModelResponse> model = client.GetModel();
    if (!model.ok()) {
      Add(findings, Grade::kWrong, who, "model", std::string(model.status().message()),
          "it needs a user or an admin (--token-file), and an address of a worker");
      continue;
    }
    const bool differs = !fingerprint.empty() && model->fingerprint() != fingerprint;
    Add(findings, differs ? Grade::kWrong : Grade::kOk, who, "model",
        absl::StrCat(model->name(), ", fingerprint ", model->fingerprint().substr(0, 16)),
        differs ? "not the model of the first worker: sessions and prefixes are not shared; give all the same file"
                : "");
    if (fingerprint.empty()) fingerprint = model->fingerprint();
    const absl::StatusOr<v1::GetWorkerStatsResponse> stats = client.GetWorkerStats();
    if (stats.ok()) {
      CheckPodsOf(who, *stats, findings);
    } else {
      Add(findings, Grade::kWarning, who, "stats", std::string(stats.status().message()),
          "it needs an admin of all tenants (--token-file)");
    }
  }
}

}  // namespace tidepool::cli
