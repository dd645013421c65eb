#include "client/cli/explain_view.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace tidepool::cli {
namespace {

using Result = Explanation::Block::Result;
using Answers = std::vector<std::pair<std::string, v1::ExplainResponse>>;

// The pod that has most of the block, and what it has.
struct Place {
  std::string pod;
  v1::BlockPlace place;
  const v1::ExplainResponse* answer = nullptr;  // its
};

Place BestPlace(const Answers& answers, int block) {
  std::optional<Place> best;
  for (const auto& [address, answer] : answers) {
    if (block >= answer.blocks_size()) continue;
    const v1::BlockPlace& place = answer.blocks(block);
    const bool better = !best.has_value() || place.missing_layers() < best->place.missing_layers() ||
                        (place.missing_layers() == best->place.missing_layers() &&
                         place.departure() != v1::BlockPlace::DEPARTURE_UNSPECIFIED &&
                         best->place.departure() == v1::BlockPlace::DEPARTURE_UNSPECIFIED);
    if (better) best = Place{answer.pod_name().empty() ? address : answer.pod_name(), place, &answer};
  }
  return best.value_or(Place());
}

std::string WhereText(const Place& place, int layers, bool many_pods) {
  std::vector<std::string> tiers;
  const auto add = [&](const char* name, int count) {
    if (count == 0) return;
    tiers.push_back(count == layers ? std::string(name) : absl::StrCat(name, " (", count, " of ", layers, " layers)"));
  };
  add("memory", place.place.memory_layers());
  add("disk", place.place.disk_layers());
  add("remote", place.place.remote_layers());
  if (tiers.empty()) return "";
  std::string text = absl::StrJoin(tiers, ", ");
  if (place.place.pinned()) absl::StrAppend(&text, ", pinned");
  if (many_pods) absl::StrAppend(&text, " of ", place.pod);
  return text;
}

std::string Ago(double seconds) {
  if (seconds < 120) return absl::StrFormat("%.0f s", seconds);
  if (seconds < 7200) return absl::StrFormat("%.0f min", seconds / 60);
  return absl::StrFormat("%.0f h", seconds / 3600);
}

std::string DepartureText(const v1::BlockPlace& place) {
  const std::string ago = Ago(place.departed_seconds());
  switch (place.departure()) {
    case v1::BlockPlace::DEPARTURE_ROOM: return absl::StrCat("was dropped ", ago, " ago: the oldest on a full disk");
    case v1::BlockPlace::DEPARTURE_QUOTA: return absl::StrCat("was dropped ", ago, " ago: its tenant is at his quota");
    case v1::BlockPlace::DEPARTURE_CORRUPT: return absl::StrCat("was damaged, and dropped ", ago, " ago");
    case v1::BlockPlace::DEPARTURE_DISK:
      return absl::StrCat("left memory ", ago, " ago and could not be written to disk");
    case v1::BlockPlace::DEPARTURE_UNUSED: return absl::StrCat("left the disk ", ago, " ago: unused for --disk-ttl");
    default: return "";
  }
}

// Why a block that is there would be computed all the same; empty: it would be read.
std::string SlowText(const Place& place, int64_t compute_bytes_per_second) {
  constexpr double kMiB = 1 << 20;
  const auto text = [&](const char* tier, const v1::TierReadStats& reads) {
    double seconds = reads.latency_seconds();
    if (reads.bytes_per_second() > 0) seconds += kMiB / reads.bytes_per_second();
    return absl::StrFormat("the %s takes %.3g s for a MiB, computing it %.3g s: left out, tried again in %.0f s", tier,
                           seconds, kMiB / static_cast<double>(compute_bytes_per_second), reads.retry_seconds());
  };
  if (place.answer == nullptr) return "";
  if (place.place.disk_layers() > 0 && place.answer->disk_slow()) return text("disk", place.answer->disk_reads());
  if (place.place.remote_layers() > 0 && place.answer->remote_slow()) {
    return text("remote tier", place.answer->remote_reads());
  }
  return "";
}

const v1::SessionMatch* ClosestOf(const Answers& answers) {
  const v1::SessionMatch* closest = nullptr;
  for (const auto& [address, answer] : answers) {
    if (!answer.has_closest()) continue;
    if (closest == nullptr || answer.closest().common_tokens() > closest->common_tokens()) closest = &answer.closest();
  }
  return closest;
}

// Where the session's tokens and the prompt's part.
std::string DivergenceText(const v1::ListBlockKeysResponse& keys, const v1::SessionMatch& session,
                           const std::function<std::string(int32_t)>& piece) {
  const int64_t at = session.common_tokens();
  std::string text = absl::StrCat("at token ", at, " ");
  if (!session.has_next_token_id()) {
    absl::StrAppend(&text, "the session ends");
  } else {
    absl::StrAppend(&text, "the session has \"", piece(session.next_token_id()), "\"");
  }
  if (at >= keys.token_ids_size()) return absl::StrCat(text, ", the prompt ends");
  return absl::StrCat(text, ", the prompt \"", piece(keys.token_ids(static_cast<int>(at))), "\"");
}

std::string MissText(const v1::ListBlockKeysResponse& keys, const Place& place, const v1::SessionMatch* closest,
                     int block, const std::function<std::string(int32_t)>& piece) {
  if (place.place.missing_layers() < keys.layers()) {
    return absl::StrCat(place.place.missing_layers(), " of its ", keys.layers(), " layers are missing");
  }
  if (std::string departure = DepartureText(place.place); !departure.empty()) return departure;
  const int64_t first = int64_t{block} * keys.block_tokens();
  if (closest != nullptr && closest->common_tokens() >= first + keys.block_tokens() &&
      closest->common_blocks() <= block) {
    return absl::StrCat("session ", closest->session_id(), " has these tokens in a lineage of its own (",
                        closest->preset(), "): computed after a compression, of use to it alone");
  }
  if (closest != nullptr && closest->common_tokens() > first &&
      closest->common_tokens() < first + keys.block_tokens()) {
    return absl::StrCat("parts from session ", closest->session_id(), ": ", DivergenceText(keys, *closest, piece));
  }
  return absl::StrCat("not stored for tenant ", keys.tenant(), ", or dropped long ago");
}

}  // namespace

const char* NameOf(Result result) {
  switch (result) {
    case Result::kHit: return "hit";
    case Result::kSlow: return "slow";
    case Result::kMiss: return "MISS";
    case Result::kUnreached: return "unreached";
    case Result::kUnused: return "unused";
  }
  return "?";
}

Explanation Explain(const v1::ListBlockKeysResponse& keys, const Answers& answers,
                    const std::function<std::string(int32_t)>& piece) {
  Explanation result;
  result.prompt_tokens = keys.token_ids_size();
  const v1::SessionMatch* closest = ClosestOf(answers);
  const char* broken = nullptr;  // what a block before is
  for (int i = 0; i < keys.keys_size(); ++i) {
    Explanation::Block& block = result.blocks.emplace_back();
    block.first_token = int64_t{i} * keys.block_tokens();
    block.last_token = block.first_token + keys.block_tokens() - 1;
    const Place place = BestPlace(answers, i);
    block.where = WhereText(place, keys.layers(), answers.size() > 1);
    const bool there = place.place.missing_layers() == 0 && !block.where.empty();
    if (i >= keys.usable_blocks()) {
      block.result = Result::kUnused;
      block.why = "the policy must see these tokens computed";
    } else if (broken != nullptr) {
      block.result = Result::kUnreached;
      block.why = there ? absl::StrCat("stored, but a block before it is ", broken) : "";
    } else if (std::string slow = SlowText(place, keys.compute_bytes_per_second()); there && !slow.empty()) {
      block.result = Result::kSlow;
      block.why = std::move(slow);
      broken = "computed";
    } else if (there) {
      block.result = Result::kHit;
      result.hit_tokens = block.last_token + 1;
    } else {
      block.result = Result::kMiss;
      block.why = MissText(keys, place, closest, i, piece);
      broken = "missing";
    }
  }
  if (result.hit_tokens > 0 && keys.compute_seconds() > 0 && keys.load_seconds() > 0) {
    result.loading = absl::StrFormat(
        "of the usable blocks takes the worker %.3g s lately, computing them %.3g s: %s", keys.load_seconds(),
        keys.compute_seconds(), keys.loads() ? "they are loaded" : "they are COMPUTED, and loading tried again later");
  }
  if (!keys.loads() && keys.load_seconds() > 0) result.hit_tokens = 0;
  if (closest != nullptr) {
    result.closest =
        absl::StrCat(closest->session_id(), " (", closest->preset(), ", ", closest->tokens(), " tokens): the first ",
                     closest->common_tokens(), " tokens are the same; ", DivergenceText(keys, *closest, piece));
  }
  return result;
}

}  // namespace tidepool::cli
