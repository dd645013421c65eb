#include "client/cli/top_view.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "base/byte_size.h"

namespace tidepool::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kColumns = 80;
constexpr size_t kMostTenants = 16;
constexpr size_t kMostStreams = 8;

// A counter's growth in a second. 0 when the process has begun again.
class Rates {
 public:
  explicit Rates(absl::Duration between) : seconds_(absl::ToDoubleSeconds(between)) {}
  double operator()(uint64_t before, uint64_t now) const {
    return now < before || seconds_ <= 0 ? 0 : static_cast<double>(now - before) / seconds_;
  }

 private:
  const double seconds_;
};

// Of all pods together.
struct TierFacts {
  uint64_t bytes = 0, limit = 0, objects = 0, corrupt = 0;
  double hits = 0, misses = 0, evictions = 0;  // a second
  int left_out = 0;                            // pods that leave it out for prefixes
};
struct TenantFacts {
  uint64_t memory = 0, memory_quota = 0, disk = 0, disk_quota = 0, pinned = 0;
  double puts = 0, quota_evictions = 0;  // a second
};
struct StreamFacts {
  std::string pod;
  v1::StreamStats stats;
  double answers = 0, bytes = 0;  // a second
};

struct Facts {
  TierFacts memory, disk, remote;
  bool has_remote = false;
  std::map<std::string, TenantFacts> tenants;
  std::vector<StreamFacts> streams;  // the slowest first
};

void AddTier(const Rates& rate, const v1::StorageTierStats& before, const v1::StorageTierStats& now, TierFacts* facts) {
  facts->bytes += now.bytes();
  facts->limit += now.limit_bytes();
  facts->objects += now.objects();
  facts->corrupt += now.corrupt();
  facts->hits += rate(before.hits(), now.hits());
  facts->misses += rate(before.misses(), now.misses());
  facts->evictions += rate(before.evictions(), now.evictions());
}

void AddReads(const v1::TierReadStats& reads, TierFacts* facts) {
  const auto state = reads.state();
  if (state == v1::TierReadStats::STATE_LEFT_OUT || state == v1::TierReadStats::STATE_PROBED) ++facts->left_out;
}

void AddPod(const Rates& rate, const TopLook::Pod& before, const TopLook::Pod& now, Facts* facts) {
  // Of a pod that could not be asked before nothing is known to have changed.
  const v1::GetStatsResponse& then = before.status.ok() ? before.stats : now.stats;
  AddTier(rate, then.memory(), now.stats.memory(), &facts->memory);
  AddTier(rate, then.disk(), now.stats.disk(), &facts->disk);
  AddReads(now.stats.disk_reads(), &facts->disk);
  AddReads(now.stats.remote_reads(), &facts->remote);
  if (now.stats.has_remote()) {
    facts->has_remote = true;
    facts->remote.hits += rate(then.remote().hits(), now.stats.remote().hits());
    facts->remote.misses += rate(then.remote().absent() + then.remote().incomplete(),
                                 now.stats.remote().absent() + now.stats.remote().incomplete());
    facts->remote.corrupt += now.stats.remote().corrupt();
  }
  std::map<std::string, const v1::TenantStats*> tenants_before;
  for (const v1::TenantStats& tenant : then.tenants()) tenants_before[tenant.tenant()] = &tenant;
  for (const v1::TenantStats& tenant : now.stats.tenants()) {
    TenantFacts& to = facts->tenants[tenant.tenant()];
    to.memory += tenant.memory_bytes();
    to.memory_quota += tenant.quota().memory_bytes();
    to.disk += tenant.disk_bytes();
    to.disk_quota += tenant.quota().disk_bytes();
    to.pinned += tenant.pinned_bytes();
    const auto old = tenants_before.find(tenant.tenant());
    if (old == tenants_before.end()) continue;
    to.puts += rate(old->second->puts(), tenant.puts());
    to.quota_evictions += rate(old->second->quota_evictions(), tenant.quota_evictions());
  }
  std::map<uint64_t, const v1::StreamStats*> streams_before;
  for (const v1::StreamStats& stream : then.streams()) streams_before[stream.id()] = &stream;
  for (const v1::StreamStats& stream : now.stats.streams()) {
    StreamFacts& to = facts->streams.emplace_back();
    to.pod = now.address;
    to.stats = stream;
    const auto old = streams_before.find(stream.id());
    if (old == streams_before.end() || old->second->peer() != stream.peer()) continue;
    to.answers = rate(old->second->requests(), stream.requests());
    to.bytes = rate(old->second->bytes(), stream.bytes());
  }
}

Facts FactsOf(const TopLook& before, const TopLook& now) {
  Facts facts;
  const Rates rate(now.time - before.time);
  for (size_t i = 0; i < now.pods.size(); ++i) {
    if (now.pods[i].status.ok()) AddPod(rate, before.pods[i], now.pods[i], &facts);
  }
  std::stable_sort(facts.streams.begin(), facts.streams.end(), [](const StreamFacts& a, const StreamFacts& b) {
    return a.stats.mean_seconds() > b.stats.mean_seconds();
  });
  return facts;
}

double Share(double part, double rest) { return part + rest > 0 ? 100 * part / (part + rest) : -1; }

// The page.

// "612M", "1.5G": at most five characters, in powers of 1024.
std::string ShortBytes(double bytes) {
  constexpr std::string_view kUnits = "BKMGTPE";
  size_t unit = 0;
  while (bytes >= 999.5 && unit + 1 < kUnits.size()) {
    bytes /= 1024;
    ++unit;
  }
  return absl::StrFormat(unit > 0 && bytes < 9.95 ? "%.1f%c" : "%.0f%c", bytes, kUnits[unit]);
}

std::string ShortTime(double seconds) {
  if (seconds < 0.0005) return absl::StrFormat("%.0fus", seconds * 1e6);
  if (seconds < 0.9995) return absl::StrFormat("%.*fms", seconds < 0.00995 ? 1 : 0, seconds * 1e3);
  if (seconds < 99.5) return absl::StrFormat("%.1fs", seconds);
  if (seconds < 5'999) return absl::StrFormat("%.0fm", seconds / 60);
  return seconds < 359'999 ? absl::StrFormat("%.0fh", seconds / 3600) : absl::StrFormat("%.0fd", seconds / 86'400);
}

std::string Percent(double value) { return value < 0 ? "-" : absl::StrFormat("%.1f", value); }
std::string Quota(uint64_t bytes) { return bytes == 0 ? "-" : ShortBytes(static_cast<double>(bytes)); }

// What a terminal would take for its own is not shown; the end is left out where there is no room.
std::string Cell(std::string_view text, size_t width) {
  std::string cell;
  for (const char c : text) cell.push_back(c >= ' ' && c <= '~' ? c : '?');
  if (cell.size() > width) cell = cell.substr(0, width - 1) + "~";
  return cell;
}

std::string Bar(double share) {
  constexpr int kWidth = 16;
  const int full = std::clamp(static_cast<int>(std::lround(share * kWidth)), 0, kWidth);
  return absl::StrCat("[", std::string(full, '#'), std::string(kWidth - full, '.'), "]");
}

class Page {
 public:
  template <typename... Args>
  void Line(const absl::FormatSpec<Args...>& format, const Args&... args) {
    std::string line = absl::StrFormat(format, args...);
    while (!line.empty() && line.back() == ' ') line.pop_back();
    if (line.size() > kColumns) line.resize(kColumns);
    lines_.push_back(std::move(line));
  }
  size_t lines() const { return lines_.size(); }
  std::string Text(size_t most) const {
    std::string text;
    for (size_t i = 0; i < lines_.size() && (most == 0 || i < most); ++i) absl::StrAppend(&text, lines_[i], "\n");
    return text;
  }

 private:
  std::vector<std::string> lines_;
};

void AddTierLine(const char* name, const TierFacts& tier, Page* page) {
  const double share = tier.limit == 0 ? 0 : static_cast<double>(tier.bytes) / static_cast<double>(tier.limit);
  page->Line("%-7s %s %5s of %-5s %7s %7s %6s %7s %7s", name, tier.limit == 0 ? std::string(18, ' ') : Bar(share),
             tier.limit == 0 ? "-" : ShortBytes(static_cast<double>(tier.bytes)), Quota(tier.limit),
             ShortNumber(static_cast<double>(tier.objects)), ShortNumber(tier.hits),
             Percent(Share(tier.hits, tier.misses)), ShortNumber(tier.evictions),
             ShortNumber(static_cast<double>(tier.corrupt)));
  if (tier.left_out > 0)
    page->Line("        LEFT OUT for prefixes, which are computed faster, in %d pods", tier.left_out);
}

const char* PodState(const TopLook::Pod& pod) {
  if (!pod.status.ok()) return absl::IsUnavailable(pod.status) ? "DOWN" : "REFUSED";
  if (!pod.stats.disk_writable()) return "DISK!";
  return pod.stats.draining() ? "draining" : "up";
}

void AddPods(const Rates& rate, const TopLook& before, const TopLook& now, Page* page) {
  page->Line("%-22s %-8s %5s %8s %7s %7s %7s %8s", "POD", "STATE", "UP", "SESSIONS", "STREAMS", "ROWS/s", "MISS/s",
             "OUT/s");
  for (size_t i = 0; i < now.pods.size(); ++i) {
    const TopLook::Pod& pod = now.pods[i];
    const std::string name = pod.stats.pod_name().empty() || pod.stats.pod_name().size() > 16
                                 ? pod.address
                                 : absl::StrCat(pod.stats.pod_name(), " ", pod.address);
    if (!pod.status.ok()) {
      page->Line("%-22s %-8s %s", Cell(name, 22), PodState(pod), Cell(std::string(pod.status.message()), 48));
      continue;
    }
    const v1::GetStatsResponse& then = before.pods[i].status.ok() ? before.pods[i].stats : pod.stats;
    page->Line("%-22s %-8s %5s %8d %7d %7s %7s %8s", Cell(name, 22), PodState(pod),
               ShortTime(pod.stats.uptime_seconds()), pod.stats.sessions(), pod.stats.open_streams(),
               ShortNumber(rate(then.recalled_rows(), pod.stats.recalled_rows())),
               ShortNumber(rate(then.missing_rows(), pod.stats.missing_rows())),
               ShortBytes(rate(then.recalled_bytes(), pod.stats.recalled_bytes())));
  }
}

void AddWorkers(const Rates& rate, const TopLook& before, const TopLook& now, Page* page) {
  if (now.workers.empty()) return;
  page->Line("");
  page->Line("%-21s %4s %4s %5s %6s %6s %5s %8s %6s %6s", "WORKER", "RUN", "WAIT", "KV%", "READ/s", "GEN/s", "HIT%",
             "RECALL/s", "LATE/s", "LOST/s");
  for (size_t i = 0; i < now.workers.size(); ++i) {
    const TopLook::Worker& worker = now.workers[i];
    if (!worker.status.ok()) {
      page->Line("%-21s %s", Cell(worker.address, 21), Cell(std::string(worker.status.message()), 56));
      continue;
    }
    const v1::GetWorkerStatsResponse& stats = worker.stats;
    const v1::GetWorkerStatsResponse& then = before.workers[i].status.ok() ? before.workers[i].stats : stats;
    const auto change = [&](int64_t old, int64_t current) {
      return rate(static_cast<uint64_t>(old), static_cast<uint64_t>(current));
    };
    const double read = change(then.prompt_tokens(), stats.prompt_tokens());
    const double cached = change(then.cached_prompt_tokens(), stats.cached_prompt_tokens());
    page->Line("%-21s %4d %4d %5s %6s %6s %5s %8s %6s %6s", Cell(worker.address, 21), stats.running_sequences(),
               stats.waiting_requests(),
               Percent(Share(static_cast<double>(stats.used_pages()),
                             static_cast<double>(stats.total_pages() - stats.used_pages()))),
               ShortNumber(read), ShortNumber(change(then.generated_tokens(), stats.generated_tokens())),
               Percent(Share(cached, read - cached)), ShortNumber(change(then.recalled_rows(), stats.recalled_rows())),
               ShortNumber(change(then.late_rows(), stats.late_rows())),
               ShortNumber(change(then.lost_rows(), stats.lost_rows())));
  }
}

void AddTenants(const Facts& facts, size_t most, Page* page) {
  if (facts.tenants.empty() || most == 0) return;
  page->Line("");
  page->Line("%-23s %7s %7s %7s %7s %7s %7s %8s", "TENANT", "MEMORY", "QUOTA", "DISK", "QUOTA", "PINNED", "PUTS/s",
             "EVICT/s");
  std::vector<std::pair<std::string, TenantFacts>> tenants(facts.tenants.begin(), facts.tenants.end());
  std::stable_sort(tenants.begin(), tenants.end(), [](const auto& a, const auto& b) {
    return a.second.memory + a.second.disk > b.second.memory + b.second.disk;
  });
  for (size_t i = 0; i < std::min(most, tenants.size()); ++i) {
    const TenantFacts& tenant = tenants[i].second;
    page->Line(
        "%-23s %7s %7s %7s %7s %7s %7s %8s", tenants[i].first.empty() ? "(not known)" : Cell(tenants[i].first, 23),
        ShortBytes(static_cast<double>(tenant.memory)), Quota(tenant.memory_quota),
        ShortBytes(static_cast<double>(tenant.disk)), Quota(tenant.disk_quota),
        ShortBytes(static_cast<double>(tenant.pinned)), ShortNumber(tenant.puts), ShortNumber(tenant.quota_evictions));
  }
  if (tenants.size() > most) page->Line("and %d more", tenants.size() - most);
}

void AddStreams(const Facts& facts, size_t most, Page* page) {
  if (facts.streams.empty() || most == 0) return;
  page->Line("");
  page->Line("%-9s %-24s %-12s %5s %8s %8s %8s", "SLOWEST", "PEER", "TENANT", "OPEN", "MiB/s", "MEAN", "LONGEST");
  for (size_t i = 0; i < std::min(most, facts.streams.size()); ++i) {
    const v1::StreamStats& stream = facts.streams[i].stats;
    page->Line("%-9s %-24s %-12s %5d %8.1f %8s %8s",
               stream.kind() == v1::StreamStats::KIND_RECALL ? "recall" : "offload", Cell(stream.peer(), 24),
               Cell(stream.tenant(), 12), stream.under_way(), facts.streams[i].bytes / (1 << 20),
               ShortTime(stream.mean_seconds()), ShortTime(stream.longest_seconds()));
  }
  if (facts.streams.size() > most) page->Line("and %d faster ones", facts.streams.size() - most);
}

}  // namespace

std::string ShortNumber(double value) {
  constexpr std::string_view kUnits = " kMGTPE";
  size_t unit = 0;
  while (value >= 999.5 && unit + 1 < kUnits.size()) {
    value /= 1000;
    ++unit;
  }
  if (unit == 0) return absl::StrFormat(value != std::floor(value) && value < 99.95 ? "%.1f" : "%.0f", value);
  return absl::StrFormat(value < 9.95 ? "%.1f%c" : "%.0f%c", value, kUnits[unit]);
}

std::string TopPage(const TopLook& before, const TopLook& now, int height) {
  const Rates rate(now.time - before.time);
  const Facts facts = FactsOf(before, now);
  Page page;
  page.Line("tidepool top   %s   rates over %.1f s",
            absl::FormatTime("%Y-%m-%d %H:%M:%S", now.time, absl::LocalTimeZone()),
            absl::ToDoubleSeconds(now.time - before.time));
  page.Line("");
  AddPods(rate, before, now, &page);
  page.Line("");
  page.Line("%-7s %-18s %5s    %-5s %7s %7s %6s %7s %7s", "TIER", "", "USED", "LIMIT", "VALUES", "HITS/s", "HIT%",
            "EVICT/s", "CORRUPT");
  AddTierLine("memory", facts.memory, &page);
  AddTierLine("disk", facts.disk, &page);
  if (facts.has_remote) AddTierLine("remote", facts.remote, &page);
  AddWorkers(rate, before, now, &page);
  // Each of the two tables below has three lines beside its rows.
  size_t tenants = kMostTenants, streams = kMostStreams;
  if (height > 0) {
    const size_t used = page.lines() + 6, all = static_cast<size_t>(height);
    const size_t left = all > used ? all - used : 0;
    streams = std::min({streams, facts.streams.size(), left / 2});
    tenants = std::min(tenants, left - streams);
  }
  AddTenants(facts, tenants, &page);
  AddStreams(facts, streams, &page);
  return page.Text(static_cast<size_t>(std::max(height, 0)));
}

std::string TopJson(const TopLook& before, const TopLook& now) {
  const Facts facts = FactsOf(before, now);
  const Rates rate(now.time - before.time);
  Json out;
  out["unix_ms"] = absl::ToUnixMillis(now.time);
  out["interval_seconds"] = absl::ToDoubleSeconds(now.time - before.time);
  const auto tier = [](const TierFacts& from) {
    Json json = {
        {"bytes", from.bytes},          {"limit_bytes", from.limit},        {"objects", from.objects},
        {"hits_per_second", from.hits}, {"misses_per_second", from.misses}, {"evictions_per_second", from.evictions},
        {"corrupt", from.corrupt},      {"left_out_pods", from.left_out}};
    return json;
  };
  out["tiers"]["memory"] = tier(facts.memory);
  out["tiers"]["disk"] = tier(facts.disk);
  if (facts.has_remote) out["tiers"]["remote"] = tier(facts.remote);
  out["pods"] = Json::array();
  for (size_t i = 0; i < now.pods.size(); ++i) {
    const TopLook::Pod& pod = now.pods[i];
    Json& json = out["pods"].emplace_back(Json{{"address", pod.address}, {"state", PodState(pod)}});
    if (!pod.status.ok()) {
      json["error"] = std::string(pod.status.message());
      continue;
    }
    const v1::GetStatsResponse& then = before.pods[i].status.ok() ? before.pods[i].stats : pod.stats;
    json["pod_name"] = pod.stats.pod_name();
    json["sessions"] = pod.stats.sessions();
    json["open_streams"] = pod.stats.open_streams();
    json["recalled_rows_per_second"] = rate(then.recalled_rows(), pod.stats.recalled_rows());
    json["missing_rows_per_second"] = rate(then.missing_rows(), pod.stats.missing_rows());
    json["recalled_bytes_per_second"] = rate(then.recalled_bytes(), pod.stats.recalled_bytes());
  }
  out["workers"] = Json::array();
  for (size_t i = 0; i < now.workers.size(); ++i) {
    const TopLook::Worker& worker = now.workers[i];
    Json& json = out["workers"].emplace_back(Json{{"address", worker.address}});
    if (!worker.status.ok()) {
      json["error"] = std::string(worker.status.message());
      continue;
    }
    const v1::GetWorkerStatsResponse& stats = worker.stats;
    const v1::GetWorkerStatsResponse& then = before.workers[i].status.ok() ? before.workers[i].stats : stats;
    const auto change = [&](int64_t old, int64_t current) {
      return rate(static_cast<uint64_t>(old), static_cast<uint64_t>(current));
    };
    json["running_sequences"] = stats.running_sequences();
    json["waiting_requests"] = stats.waiting_requests();
    json["used_pages"] = stats.used_pages();
    json["total_pages"] = stats.total_pages();
    json["prompt_tokens_per_second"] = change(then.prompt_tokens(), stats.prompt_tokens());
    json["cached_prompt_tokens_per_second"] = change(then.cached_prompt_tokens(), stats.cached_prompt_tokens());
    json["generated_tokens_per_second"] = change(then.generated_tokens(), stats.generated_tokens());
    json["recalled_rows_per_second"] = change(then.recalled_rows(), stats.recalled_rows());
    json["late_rows_per_second"] = change(then.late_rows(), stats.late_rows());
    json["lost_rows_per_second"] = change(then.lost_rows(), stats.lost_rows());
  }
  out["tenants"] = Json::array();
  for (const auto& [name, tenant] : facts.tenants) {
    out["tenants"].push_back({{"tenant", name},
                              {"memory_bytes", tenant.memory},
                              {"memory_quota_bytes", tenant.memory_quota},
                              {"disk_bytes", tenant.disk},
                              {"disk_quota_bytes", tenant.disk_quota},
                              {"pinned_bytes", tenant.pinned},
                              {"puts_per_second", tenant.puts},
                              {"quota_evictions_per_second", tenant.quota_evictions}});
  }
  out["streams"] = Json::array();
  for (const StreamFacts& stream : facts.streams) {
    out["streams"].push_back({{"pod", stream.pod},
                              {"kind", stream.stats.kind() == v1::StreamStats::KIND_RECALL ? "recall" : "offload"},
                              {"peer", stream.stats.peer()},
                              {"tenant", stream.stats.tenant()},
                              {"under_way", stream.stats.under_way()},
                              {"answers_per_second", stream.answers},
                              {"bytes_per_second", stream.bytes},
                              {"mean_seconds", stream.stats.mean_seconds()},
                              {"longest_seconds", stream.stats.longest_seconds()}});
  }
  return out.dump(-1, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace) + "\n";
}

}  // namespace tidepool::cli
