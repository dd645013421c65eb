#include "tests/chaos/fault_kinds.h"

#include <signal.h>
#include <sys/mount.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>

#include "absl/strings/str_cat.h"

namespace tidepool::test {

using std::chrono::milliseconds;

SmallDisks::SmallDisks(const std::string& parent, int count, int megabytes) {
  for (int disk = 0; disk < count; ++disk) {
    const std::string mount_point = absl::StrCat(parent, "/disk", disk);
    std::filesystem::create_directory(mount_point);
    dirs_.push_back(mount_point + "/data");
    if (!refused_.empty()) continue;
    if (mount("tidepool-chaos", mount_point.c_str(), "tmpfs", 0, absl::StrCat("size=", megabytes, "m").c_str()) == 0) {
      mounts_.push_back(mount_point);
    } else {
      refused_ = absl::StrCat("mounting a tmpfs of ", megabytes, " MiB: ", std::strerror(errno));
    }
  }
}

SmallDisks::~SmallDisks() {
  for (const std::string& mount_point : mounts_) umount2(mount_point.c_str(), MNT_DETACH);
}

void SmallDisks::Fill(int disk) const {
  std::ofstream ballast(mounts_[static_cast<size_t>(disk)] + "/ballast", std::ios::binary);
  const std::string piece(64 << 10, 'x');
  while (ballast.write(piece.data(), static_cast<std::streamsize>(piece.size())).flush()) {
  }
}

void SmallDisks::Free(int disk) const { std::filesystem::remove(mounts_[static_cast<size_t>(disk)] + "/ballast"); }

namespace {

// A fault of the network between workers and a pod, `kind` of it.
Fault OfNetwork(Fleet& fleet, std::string name, const FaultProxy::Faults& kind) {
  return {.name = std::move(name),
          .begin =
              [&fleet, kind](int pod) {
                for (int worker = 0; worker < fleet.workers(); ++worker) {
                  fleet.proxy(worker, pod).Set(kind);
                  if (kind.refuse) fleet.proxy(worker, pod).Drop();
                }
              },
          .end =
              [&fleet](int pod) {
                for (int worker = 0; worker < fleet.workers(); ++worker) fleet.proxy(worker, pod).Clear();
              }};
}

Fault Again(Fleet& fleet, std::string name, void (FaultProxy::*act)()) {
  auto all = [&fleet, act](int pod) {
    for (int worker = 0; worker < fleet.workers(); ++worker) (fleet.proxy(worker, pod).*act)();
  };
  // Some ten times: every call of `during` would leave no time to connect.
  return {.name = std::move(name),
          .begin = all,
          .during = [all, calls = std::make_shared<int>(0)](int pod) { ++*calls % 10 == 0 ? all(pod) : void(); },
          .end = [](int) {}};
}

// Every pod in turn hands on what it has, is ended and started again.
class RollingDrain {
 public:
  RollingDrain(Fleet* fleet, Tally* tally) : fleet_(fleet), tally_(tally) {}

  void Begin() {
    pod_ = 0;
    Drain();
  }
  // Goes on; true when all are through.
  bool Over() {
    if (drain_ != nullptr) {
      if (drain_->Running()) return false;
      if (const ExitStatus drained = drain_->Wait(); !(drained == ExitStatus::Exited(0))) {
        tally_->Count([](Tally::Counts& counts) { ++counts.failed; });
        tally_->Complain(absl::StrCat("failed: drain of pod ", pod_, ": ", drain_->Stderr()));
      }
      drain_ = nullptr;
      fleet_->pod(pod_).Terminate();
      fleet_->StartPod(pod_);
    }
    for (int worker = 0; worker < fleet_->workers(); ++worker) {
      if (!fleet_->SeesAll(worker)) return false;
    }
    if (++pod_ == fleet_->pods()) return true;
    Drain();
    return false;
  }

 private:
  void Drain() {
    drain_ = std::make_unique<ChildProcess>(
        std::vector<std::string>{BinaryPath("tidepool"), "admin", "drain", "--cache=" + fleet_->pod_address(pod_)});
  }

  Fleet* const fleet_;
  Tally* const tally_;
  int pod_ = 0;
  std::unique_ptr<ChildProcess> drain_;
};

}  // namespace

std::vector<Fault> PodFaults(Fleet& fleet, const SmallDisks& disks, Tally& tally) {
  std::vector<Fault> faults;
  faults.push_back({.name = "pod: kill -9, restart",
                    .begin = [&fleet](int pod) { fleet.pod(pod).Kill(); },
                    .end = [&fleet](int pod) { fleet.StartPod(pod); }});
  faults.push_back({.name = "pod: stopped (SIGSTOP)",
                    .begin = [&fleet](int pod) { fleet.pod(pod).Signal(SIGSTOP); },
                    .end = [&fleet](int pod) { fleet.pod(pod).Signal(SIGCONT); }});
  faults.push_back({.name = "pod: orderly restart",
                    .begin = [&fleet](int pod) { fleet.pod(pod).Terminate(); },
                    .end = [&fleet](int pod) { fleet.StartPod(pod); }});
  faults.push_back(OfNetwork(fleet, "network: pod cut off from all workers", {.blackhole = true}));
  faults.push_back(OfNetwork(fleet, "network: connections refused", {.refuse = true}));
  faults.push_back(OfNetwork(fleet, "network: 1 MB/s", {.bytes_per_second = 1'000'000}));
  faults.push_back(
      OfNetwork(fleet, "network: late by 25 to 125 ms", {.delay = milliseconds(25), .jitter = milliseconds(100)}));
  faults.push_back({.name = "network: pod cut off from one worker",
                    .begin = [&fleet](int pod) { fleet.proxy(pod % fleet.workers(), pod).Set({.blackhole = true}); },
                    .end = [&fleet](int pod) { fleet.proxy(pod % fleet.workers(), pod).Clear(); }});
  faults.push_back(Again(fleet, "network: connections reset", &FaultProxy::Drop));
  faults.push_back(Again(fleet, "network: connections half closed", &FaultProxy::HalfClose));
  if (disks.refused().empty()) {
    faults.push_back({.name = "pod: disk full",
                      .begin = [&disks](int pod) { disks.Fill(pod); },
                      .end = [&disks](int pod) { disks.Free(pod); }});
  }
  auto rolling = std::make_shared<RollingDrain>(&fleet, &tally);
  faults.push_back({.name = "pods: drained, ended and restarted one by one",
                    .begin = [rolling](int) { rolling->Begin(); },
                    .end = [](int) {},
                    .over = [rolling] { return rolling->Over(); }});
  return faults;
}

std::vector<Fault> WorkerFaults(Fleet& fleet, WorkerLives& lives) {
  auto ended_by = [&](std::string name, std::function<void(ChildProcess&)> ends) {
    return Fault{.name = std::move(name),
                 .begin =
                     [&fleet, &lives, ends](int worker) {
                       lives.Ends(worker);
                       ends(fleet.worker(worker));
                     },
                 .end =
                     [&fleet, &lives](int worker) {
                       fleet.StartWorker(worker);
                       lives.Started(worker);
                     }};
  };
  return {ended_by("worker: kill -9, restart", [](ChildProcess& worker) { worker.Kill(); }),
          ended_by("worker: orderly restart", [](ChildProcess& worker) { worker.Terminate(); })};
}

std::vector<Fault> RedisFaults(RedisCluster& redis) {
  return {{.name = "redis: server killed (failover), restarted",
           .begin = [&redis](int node) { redis.node(node).Kill(); },
           .end = [&redis](int node) { redis.node(node).Start(); }},
          {.name = "redis: server stopped (slow tier)",
           .begin = [&redis](int node) { redis.node(node).Pause(); },
           .end = [&redis](int node) { redis.node(node).Resume(); }}};
}

}  // namespace tidepool::test
