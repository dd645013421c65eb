// tidepool admin: what a cache service holds and does.
#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/declare.h"
#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "base/byte_size.h"
#include "client/admin_client.h"
#include "client/cli/admin_commands.h"
#include "client/cli/cli.h"
#include "client/generation_client.h"

ABSL_FLAG(bool, all, false, "drain: all blocks, also those that no session needs");
ABSL_DECLARE_FLAG(std::string, tenant);  // also a worker's, so that its help speaks of both

namespace tidepool::cli {

std::string When(int64_t unix_ms) {
  return absl::FormatTime("%Y-%m-%d %H:%M:%S", absl::FromUnixMillis(unix_ms), absl::LocalTimeZone());
}

int FailCache(const absl::Status& status) {
  if (!absl::IsUnavailable(status) || CacheAddress() != kDefaultCacheAddress) return Fail(status);
  return Fail(absl::UnavailableError(
      absl::StrCat(status.message(), " (the cache of tidepool serve: --cache=", kDefaultWorkerAddress, ")")));
}

void PrintPodHeading(const AdminTarget& target, const std::string& pod) {
  if (Json() || target.pods.size() == 1) return;
  std::printf("%s== %s\n", pod == target.pods[0] ? "" : "\n", pod.c_str());
  std::fflush(stdout);
}

namespace {

void PrintTier(const char* name, const v1::StorageTierStats& tier) {
  std::printf("%-7s %12s of %-10s %9llu %9llu %9llu %9llu %8llu\n", name, FormatByteSize(tier.bytes()).c_str(),
              FormatByteSize(tier.limit_bytes()).c_str(), Number(tier.objects()), Number(tier.hits()),
              Number(tier.misses()), Number(tier.evictions()), Number(tier.corrupt()));
}

void PrintRemote(const v1::RemoteTierStats& remote) {
  std::printf(
      "remote        %llu hits, %s; misses: %llu absent, %llu incomplete, %llu corrupt, %llu failed, %llu not asked\n",
      Number(remote.hits()), FormatByteSize(remote.hit_bytes()).c_str(), Number(remote.absent()),
      Number(remote.incomplete()), Number(remote.corrupt()), Number(remote.failed()), Number(remote.unavailable()));
  std::printf("              %llu stored, %s, %llu there already; %llu given up, %llu dropped, %s to be copied\n",
              Number(remote.puts()), FormatByteSize(remote.put_bytes()).c_str(), Number(remote.repeated_puts()),
              Number(remote.write_failures()), Number(remote.dropped()),
              FormatByteSize(remote.backlog_bytes()).c_str());
  std::string state = "in use";
  if (remote.breaker() == v1::RemoteTierStats::BREAKER_OPEN) {
    state = absl::StrCat("LEFT ALONE for ", static_cast<int64_t>(remote.retry_seconds() + 1), " s");
  } else if (remote.breaker() == v1::RemoteTierStats::BREAKER_HALF_OPEN) {
    state = "being probed";
  }
  std::printf("              %s, left alone %llu times%s%s\n", state.c_str(), Number(remote.breaker_opened()),
              remote.last_failure().empty() ? "" : "; last failure: ", remote.last_failure().c_str());
}

void PrintReads(const char* name, const v1::TierReadStats& reads) {
  if (reads.reads() == 0) return;
  std::printf("%-13s %llu, lately %.1f ms each", absl::StrCat(name, " reads").c_str(), Number(reads.reads()),
              reads.latency_seconds() * 1e3);
  if (reads.bytes_per_second() > 0) {
    std::printf(" and %s a second", FormatByteSize(static_cast<uint64_t>(reads.bytes_per_second())).c_str());
  }
  if (reads.state() == v1::TierReadStats::STATE_LEFT_OUT) {
    std::printf("; LEFT OUT for prefixes, which are computed faster, for %lld s",
                static_cast<long long>(reads.retry_seconds() + 1));
  } else if (reads.state() == v1::TierReadStats::STATE_PROBED) {
    std::printf("; being tried again for prefixes");
  }
  if (reads.times_left_out() > 0) {
    std::printf("; left out %llu times, by %llu lookups", Number(reads.times_left_out()),
                Number(reads.lookups_left_out()));
  }
  std::printf("\n");
}

const char* StateName(v1::CachePodStats::State state) {
  switch (state) {
    case v1::CachePodStats::STATE_CONNECTING: return "connecting";
    case v1::CachePodStats::STATE_UP: return "up";
    case v1::CachePodStats::STATE_SLOW_START: return "slow start";
    case v1::CachePodStats::STATE_DRAINING: return "draining";
    case v1::CachePodStats::STATE_LEAVING: return "leaving";
    case v1::CachePodStats::STATE_DOWN: return "DOWN";
    default: return "?";
  }
}

void PrintPods(const v1::GetWorkerStatsResponse& stats) {
  if (stats.cache_pods().empty()) return;
  std::printf("manifests     %lld on one pod only, %lld copied again; blocks: %lld stored once of two copies\n",
              static_cast<long long>(stats.degraded_manifests()), static_cast<long long>(stats.repaired_manifests()),
              static_cast<long long>(stats.degraded_blocks()));
  std::printf("%-24s %-10s %6s %10s %10s %9s %9s %6s\n", "pod", "state", "share", "offloaded", "recalled", "failed rw",
              "moved blk", "downs");
  for (const v1::CachePodStats& pod : stats.cache_pods()) {
    std::printf("%-24s %-10s %5.0f%% %10s %10s %9lld %9lld %6lld\n", pod.name().c_str(), StateName(pod.state()),
                100 * pod.weight(), FormatByteSize(pod.offloaded_bytes()).c_str(),
                FormatByteSize(pod.recalled_bytes()).c_str(), static_cast<long long>(pod.failed_rows()),
                static_cast<long long>(pod.moved_blocks()), static_cast<long long>(pod.downs()));
  }
}

int WorkerStats(std::shared_ptr<const ChannelSecurity> security) {
  GenerationClient client(WorkerAddress(), std::move(security));
  const absl::StatusOr<v1::GetWorkerStatsResponse> stats = client.GetWorkerStats();
  if (!stats.ok()) return Fail(stats.status());
  if (Json()) return PrintJson(*stats), kOk;
  std::printf("sequences     %lld running, %lld waiting\n", static_cast<long long>(stats->running_sequences()),
              static_cast<long long>(stats->waiting_requests()));
  std::printf("slot pages    %lld of %lld used, %s each\n", static_cast<long long>(stats->used_pages()),
              static_cast<long long>(stats->total_pages()), FormatByteSize(stats->page_bytes()).c_str());
  std::printf("requests      %lld finished, %lld cancelled, %lld failed\n",
              static_cast<long long>(stats->requests_finished()), static_cast<long long>(stats->requests_cancelled()),
              static_cast<long long>(stats->requests_failed()));
  std::printf("tokens        %lld of prompts (%lld not computed again), %lld generated\n",
              static_cast<long long>(stats->prompt_tokens()), static_cast<long long>(stats->cached_prompt_tokens()),
              static_cast<long long>(stats->generated_tokens()));
  std::printf("rows          %lld evicted, %lld merged, %lld recalled, %lld late, %lld lost\n",
              static_cast<long long>(stats->evicted_rows()), static_cast<long long>(stats->merged_rows()),
              static_cast<long long>(stats->recalled_rows()), static_cast<long long>(stats->late_rows()),
              static_cast<long long>(stats->lost_rows()));
  std::printf("offloaded     %lld blocks, %s, %lld failed, %lld reconnects\n",
              static_cast<long long>(stats->offloaded_blocks()), FormatByteSize(stats->offloaded_bytes()).c_str(),
              static_cast<long long>(stats->offload_failures()), static_cast<long long>(stats->cache_reconnects()));
  PrintPods(*stats);
  return kOk;
}

int Stats(AdminClient& client) {
  const absl::StatusOr<v1::GetStatsResponse> stats = client.Stats();
  if (!stats.ok()) return FailCache(stats.status());
  if (Json()) return PrintJson(*stats), kOk;
  std::printf("%-7s %12s    %-10s %9s %9s %9s %9s %8s\n", "tier", "bytes", "limit", "blocks", "hits", "misses",
              "evicted", "corrupt");
  PrintTier("memory", stats->memory());
  PrintTier("disk", stats->disk());
  if (stats->has_remote()) PrintRemote(stats->remote());
  PrintReads("disk", stats->disk_reads());
  PrintReads("remote", stats->remote_reads());
  std::printf("moved         %llu values to disk, %llu back to memory, %llu dropped\n", Number(stats->demotions()),
              Number(stats->promotions()), Number(stats->dropped()));
  if (stats->disk().expired() + stats->disk().renewed() > 0) {
    std::printf("expired       %llu values unused on disk; %llu used, and stored anew\n",
                Number(stats->disk().expired()), Number(stats->disk().renewed()));
  }
  std::printf("recalled      %llu rows, %s; %llu asked for and missing\n", Number(stats->recalled_rows()),
              FormatByteSize(stats->recalled_bytes()).c_str(), Number(stats->missing_rows()));
  if (stats->pinned_objects() > 0) {
    std::printf("pinned        %llu values, %s\n", Number(stats->pinned_objects()),
                FormatByteSize(stats->pinned_bytes()).c_str());
  }
  std::printf("sessions      %llu\n", Number(stats->sessions()));
  std::printf("files         %s, %s\n", FormatByteSize(stats->disk_used_bytes()).c_str(),
              stats->disk_writable() ? "writable" : "NOT WRITABLE: the disk is full or read-only");
  std::printf("streams       %llu open, %s in transit\n", Number(stats->open_streams()),
              FormatByteSize(stats->staging_bytes()).c_str());
  std::printf("up            %.0f s, version %s\n", stats->uptime_seconds(), stats->version().c_str());
  if (!stats->pod_name().empty()) {
    std::printf("pod           %s%s\n", stats->pod_name().c_str(), stats->draining() ? ", draining" : "");
  }
  return kOk;
}

// Of each pod, one after the other; the worst exit code.
int StatsOf(const AdminTarget& target) {
  int worst = kOk;
  for (const std::string& pod : target.pods) {
    PrintPodHeading(target, pod);
    AdminClient client = target.Client(pod);
    worst = std::max(worst, Stats(client));
  }
  return worst;
}

int Drain(AdminClient& client) {
  const absl::Status status = client.Drain(absl::GetFlag(FLAGS_all), [](const v1::DrainProgress& progress) {
    if (Json()) return PrintJson(progress);
    std::printf("copied %llu of %llu sessions, %llu of %llu blocks (%s)%s\n", Number(progress.sessions_copied()),
                Number(progress.sessions()), Number(progress.blocks_copied()), Number(progress.blocks()),
                FormatByteSize(progress.bytes_copied()).c_str(),
                progress.drained() ? "; drained: it can be taken away" : "");
    std::fflush(stdout);
  });
  return status.ok() ? kOk : FailCache(status);
}

int Sessions(AdminClient& client) {
  const absl::StatusOr<std::vector<v1::SessionSummary>> sessions = client.Sessions();
  if (!sessions.ok()) return FailCache(sessions.status());
  if (!Json())
    std::printf("%-32s %8s %6s %-10s %-20s %10s\n", "session", "tokens", "turns", "preset", "updated", "state");
  for (const v1::SessionSummary& session : *sessions) {
    if (Json()) {
      PrintJson(session);
      continue;
    }
    std::printf("%-32s %8lld %6lld %-10s %-20s %10s\n", session.session_id().c_str(),
                static_cast<long long>(session.tokens()), static_cast<long long>(session.revision()),
                session.preset().c_str(), When(session.updated_unix_ms()).c_str(),
                FormatByteSize(session.manifest_bytes()).c_str());
  }
  return kOk;
}

int Session(AdminClient& client, const std::string& id) {
  const absl::StatusOr<v1::SessionDescription> session = client.Describe(id);
  if (!session.ok()) return FailCache(session.status());
  if (Json()) return PrintJson(*session), kOk;
  std::printf(
      "session  %s (tenant %s)\ntokens   %lld in %lld turns\npreset   %s\nblocks   %lld, the first %lld stored\nstate  "
      "  %s\nmodel    %s\nupdated  %s\n",
      session->summary().session_id().c_str(), session->tenant().c_str(),
      static_cast<long long>(session->summary().tokens()), static_cast<long long>(session->summary().revision()),
      session->summary().preset().c_str(), static_cast<long long>(session->blocks()),
      static_cast<long long>(session->stored_blocks()), FormatByteSize(session->engine_state_bytes()).c_str(),
      session->model_fingerprint().c_str(), When(session->summary().updated_unix_ms()).c_str());
  return kOk;
}

int Drop(AdminClient& client, const std::string& session) {
  if (const absl::Status dropped = client.Drop(session); !dropped.ok()) return FailCache(dropped);
  if (Json()) {
    PrintJson(v1::DropSessionResponse());
  } else {
    std::printf("dropped %s\n", session.c_str());
  }
  return kOk;
}

struct Subcommand {
  const char* name;
  size_t least, most;   // arguments after the name
  const char* missing;  // what the first of them is
  bool many_pods;
  std::function<int(const AdminTarget& target, const Arguments& arguments)> run;
};

std::vector<Subcommand> Subcommands() {
  const auto one = [](int (*run)(AdminClient&)) {
    return [run](const AdminTarget& target, const Arguments&) {
      AdminClient client = target.Client(target.pods[0]);
      return run(client);
    };
  };
  const auto one_session = [](int (*run)(AdminClient&, const std::string&)) {
    return [run](const AdminTarget& target, const Arguments& arguments) {
      AdminClient client = target.Client(target.pods[0]);
      return run(client, arguments[0]);
    };
  };
  const auto all = [](int (*run)(const AdminTarget&)) {
    return [run](const AdminTarget& target, const Arguments&) { return run(target); };
  };
  const auto maybe_session = [](int (*run)(const AdminTarget&, const std::string&)) {
    return [run](const AdminTarget& target, const Arguments& arguments) {
      return run(target, arguments.empty() ? std::string() : arguments[0]);
    };
  };
  const auto stats = [](const AdminTarget& target) {
    return WorkerIsGiven() ? WorkerStats(target.security) : StatsOf(target);
  };
  return {
      {"stats", 0, 0, "", true, all(stats)},
      {"top", 0, 0, "", true, all(AdminTop)},
      {"sessions", 0, 0, "", false, one(Sessions)},
      {"session", 1, 1, "session's ID", false, one_session(Session)},
      {"explain", 0, 0, "", true, all(AdminExplain)},
      {"pin", 0, 1, "", true, maybe_session(AdminPin)},
      {"unpin", 0, 1, "", true, maybe_session(AdminUnpin)},
      {"pins", 0, 0, "", true, all(AdminPins)},
      {"drop", 1, 1, "session's ID", false, one_session(Drop)},
      {"quota", 0, 1, "", true, AdminQuota},
      {"scrub", 0, 0, "", true, all(AdminScrub)},
      {"compact", 0, 0, "", true, all(AdminCompact)},
      {"drain", 0, 0, "", false, one(Drain)},
      {"config", 0, 1, "", true, AdminConfig},
  };
}

int Admin(const Arguments& arguments) {
  const std::vector<Subcommand> subcommands = Subcommands();
  const std::string names = absl::StrJoin(
      subcommands, ", ", [](std::string* out, const Subcommand& subcommand) { out->append(subcommand.name); });
  if (arguments.empty()) return UsageError(absl::StrCat("admin: one of ", names, " is missing"));
  const std::string& what = arguments[0];
  const auto found = std::find_if(subcommands.begin(), subcommands.end(),
                                  [&what](const Subcommand& subcommand) { return what == subcommand.name; });
  if (found == subcommands.end()) return UsageError(absl::StrCat("admin: '", what, "' is not one of ", names));
  const Arguments rest(arguments.begin() + 1, arguments.end());
  if (rest.size() < found->least) {
    return UsageError(absl::StrCat("admin ", what, ": the ", found->missing, " is missing"));
  }
  if (rest.size() > found->most) {
    return UsageError(absl::StrCat("admin ", what, ": unexpected argument '", rest[found->most], "'"));
  }
  const auto security = ReadSecurity();
  if (!security.ok()) return UsageError(security.status());
  const AdminTarget target = {
      .pods = absl::StrSplit(CacheAddress(), ','), .tenant = absl::GetFlag(FLAGS_tenant), .security = *security};
  if (target.pods.size() > 1 && !found->many_pods) {
    return UsageError(absl::StrCat("admin ", what, ": --cache: '", CacheAddress(), "' is more than one pod"));
  }
  return found->run(target, rest);
}

}  // namespace

Command AdminCommand() {
  return {
      .name = "admin",
      .arguments = "WHAT [flags]",
      .summary = "what a cache service, or a worker, holds and does, and changing it",
      .details =
          "Asks a tidepool-cache, or the cache of a tidepool serve at that one's address. --cache may name several\n"
          "pods (a:7070,b:7070) but for sessions, session, drop and drain.\n"
          "stats            bytes and blocks of all tiers, rows recalled and missing, sessions; with --worker that\n"
          "                 worker's sequences, slot pages, tokens and rows, and what it has of each pod\n"
          "top              a live view of pods, tiers, tenants, slow streams, and of --worker (several: a,b);\n"
          "                 --interval between two looks, --once for one page without control characters\n"
          "sessions         stored sessions of the tenant\n"
          "session ID       one of them\n"
          "explain          what --prompt or --prompt-file would find in the cache, block by block, and why; the\n"
          "                 keys come from --worker, or from --model with --tenant-salt-file\n"
          "pin ID           keeps a session's blocks, as they are now, in memory, for --ttl; or those of --prompt,\n"
          "                 as --name\n"
          "unpin ID         lets them go again; or --name\n"
          "pins             what is pinned\n"
          "drop ID          deletes a session: it cannot be resumed\n"
          "quota [TENANT]   bytes and limits of all tenants, or of one; sets his with --memory-quota, --disk-quota\n"
          "                 and --pinned-quota. Past them his own blocks leave, nobody else's\n"
          "scrub            reads everything, at most --rate bytes a second, verifies it and drops what is damaged;\n"
          "                 exit code 1 when something was\n"
          "compact          merges the database's files of manifests and index\n"
          "drain            copies a pod's sessions and the blocks that they need to its peers (tidepool-cache\n"
          "                 --peers); then it takes nothing new and can be ended. Ctrl-C gives it up\n"
          "config           the flags in force; config NAME=VALUE changes memory-bytes, disk-bytes or log-level\n"
          "                 until the restart",
      .flags = {"client/cli/admin", "client/cli/compression_flags.cc", "--prompt", "--prompt-file", "--cache",
                "--worker", "--model", "--kv-type", "--tenant", "--tenant-salt-file", "--json", kChannelFlags},
      .run = Admin};
}

}  // namespace tidepool::cli
