#include "cacheservice/shards/sharded_cache.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "cacheservice/shards/ask_pods.h"
#include "cacheservice/shards/block_sites.h"
#include "cacheservice/shards/manifest_copies.h"
#include "cacheservice/shards/pod_set.h"
#include "cacheservice/shards/sharded_offload.h"
#include "cacheservice/shards/sharded_recall.h"

namespace tidepool {
namespace {

using Stored = RemoteCache::Stored;
using Values = std::vector<std::optional<std::string>>;

constexpr size_t kMostLookedUp = 65'536;  // keys of one lookup, as of one pod

absl::Status NobodyThere() { return absl::UnavailableError("cache service: no pod can be reached"); }

}  // namespace

class ShardedCache::Impl {
 public:
  explicit Impl(ShardedCacheOptions options)
      : options_(std::move(options)),
        pods_({.list = options_.pods,
               .remote = options_.remote,
               .timing = options_.timing,
               .resolve_interval = options_.resolve_interval,
               .resolve = options_.resolve,
               .own_name = options_.own_name},
              [this](uint32_t pod, RemoteCache& cache) { return manifests_.CatchUp(pod, cache); }) {}
  ~Impl() { pods_.Stop(); }  // while all else is there: what fails then still ends here

  // Of the blocks of `keys`: which are stored, at the pods that may have them.
  absl::StatusOr<std::vector<Stored>> Lookup(absl::Span<const BlockKey> keys, const ReadTerms& terms);
  // Asks each of `wanted` at its choice number `choice`; takes out those that came, or have no further choice.
  bool FetchRound(const Placement& placement, absl::Span<const BlockId> ids, const std::vector<PodChoices>& choices,
                  int choice, const ReadTerms& terms, std::vector<size_t>* wanted, Values* values);

  const ShardedCacheOptions options_;
  BlockSites sites_;
  OffloadCounters offloads_;
  std::atomic<int64_t> recalled_rows_{0}, recalled_bytes_{0}, missing_rows_{0};
  std::atomic<int64_t> fetched_blocks_{0}, fetched_bytes_{0};
  // Each calls the other: the pods are started last and stopped first.
  ManifestCopies manifests_{&pods_};
  PodSet pods_;
};

ShardedCache::ShardedCache(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ShardedCache::~ShardedCache() = default;

absl::StatusOr<std::unique_ptr<ShardedCache>> ShardedCache::Connect(ShardedCacheOptions options) {
  if (options.copies < 1 || options.copies > 2) {
    return absl::InvalidArgumentError(absl::StrCat("copies: ", options.copies, " is not 1 or 2"));
  }
  if (options.timing.most_failures < 1 || options.timing.most_failures > 100) {
    return absl::InvalidArgumentError(
        absl::StrCat("most_failures: ", options.timing.most_failures, " is not in 1 to 100"));
  }
  if (options.timing.slow_start < absl::ZeroDuration() || options.timing.slow_start > absl::Hours(24)) {
    return absl::InvalidArgumentError(
        absl::StrCat("slow_start: ", absl::FormatDuration(options.timing.slow_start), " is not in 0s to 24h"));
  }
  // What every connection is made with is checked once, here.
  RemoteCacheOptions one = options.remote;
  one.endpoint = "unix:/nowhere";
  TP_RETURN_IF_ERROR(RemoteCache::Connect(std::move(one)).status());
  return std::unique_ptr<ShardedCache>(new ShardedCache(std::make_unique<Impl>(std::move(options))));
}

absl::StatusOr<std::vector<Stored>> ShardedCache::Impl::Lookup(absl::Span<const BlockKey> keys,
                                                               const ReadTerms& terms) {
  const std::shared_ptr<const Placement> placement = pods_.placement();
  if (placement->pods.empty()) return NobodyThere();
  struct Part {
    std::vector<BlockKey> keys;
    std::vector<uint32_t> indices;
  };
  auto parts = std::make_shared<std::vector<Part>>(placement->pods.size());
  std::vector<PodChoices> choices;
  for (uint32_t i = 0; i < keys.size(); ++i) {
    choices.push_back(ChoicesToRead(keys[i], *placement, sites_, options_.copies));
    for (int c = 0; c < choices.back().count; ++c) {
      Part& part = (*parts)[choices.back().pods[c]];
      part.keys.push_back(keys[i]);
      part.indices.push_back(i);
    }
  }
  std::vector<std::shared_ptr<Pod>> asked;
  std::vector<size_t> which;
  for (size_t pod = 0; pod < parts->size(); ++pod) {
    if ((*parts)[pod].keys.empty()) continue;
    asked.push_back(placement->pods[pod]);
    which.push_back(pod);
  }
  const auto answers = AskPods<std::vector<Stored>>(
      asked, {.deadline = std::min(terms.deadline, absl::Now() + options_.remote.lookup_patience)},
      [parts, which, terms](size_t i, RemoteCache& cache) { return cache.LookupEach((*parts)[which[i]].keys, terms); });
  std::vector<Stored> stored(keys.size(), Stored::kNo);
  bool any = false;
  for (size_t a = 0; a < answers.size(); ++a) {
    if (!answers[a].ok()) continue;
    any = true;
    const Part& part = (*parts)[which[a]];
    for (size_t i = 0; i < part.indices.size(); ++i) {
      Stored& of_key = stored[part.indices[i]];
      if (of_key >= (*answers[a])[i]) continue;
      of_key = (*answers[a])[i];
      if (of_key == Stored::kYes && choices[part.indices[i]].pods[0] != which[a])
        sites_.Put(part.keys[i], asked[a]->id());
    }
  }
  if (!any) return answers.front().status();
  return stored;
}

absl::StatusOr<PrefixHit> ShardedCache::LookupPrefix(absl::Span<const BlockKey> chain, const ReadTerms& terms) {
  chain = chain.subspan(0, kMostLookedUp);
  if (chain.empty()) return PrefixHit();
  TP_ASSIGN_OR_RETURN(const std::vector<Stored> stored, impl_->Lookup(chain, terms));
  const auto read = std::find_if(stored.begin(), stored.end(), [](Stored each) { return each != Stored::kYes; });
  const auto slow = std::find(read, stored.end(), Stored::kNo);
  return PrefixHit{.blocks = static_cast<int>(read - stored.begin()), .slow_blocks = static_cast<int>(slow - read)};
}

void ShardedCache::Offload(BlockId id, std::string value, OffloadOptions options,
                           std::function<void(absl::Status)> done) {
  ShardedOffload::Start({.pods = &impl_->pods_, .sites = &impl_->sites_, .counters = &impl_->offloads_},
                        impl_->options_.copies, id, std::move(value), options, std::move(done));
}

void ShardedCache::Recall(std::vector<RowSelection> selections, absl::Time deadline,
                          std::function<void(absl::StatusOr<RecalledRows>)> done) {
  std::shared_ptr<const Placement> placement = impl_->pods_.placement();
  int64_t wanted = 0;
  for (const RowSelection& selection : selections) wanted += std::popcount(selection.row_mask);
  if (placement->pods.empty()) return done(NobodyThere());
  if (wanted == 0) return done(RecalledRows{.found = std::vector<uint64_t>(selections.size(), 0)});
  ShardedRecall::Start(std::move(placement), &impl_->sites_, impl_->options_.copies, std::move(selections),
                       impl_->options_.remote.layout.row_bytes(), deadline,
                       [impl = impl_.get(), wanted, done = std::move(done)](absl::StatusOr<RecalledRows> rows) {
                         if (rows.ok()) {
                           const int64_t came = static_cast<int64_t>(rows->row_checksums.size());
                           impl->recalled_rows_.fetch_add(came);
                           impl->recalled_bytes_.fetch_add(static_cast<int64_t>(rows->rows.size()));
                           impl->missing_rows_.fetch_add(wanted - came);
                         }
                         done(std::move(rows));
                       });
}

bool ShardedCache::Impl::FetchRound(const Placement& placement, absl::Span<const BlockId> ids,
                                    const std::vector<PodChoices>& choices, int choice, const ReadTerms& terms,
                                    std::vector<size_t>* wanted, Values* values) {
  struct Part {
    std::vector<BlockId> ids;
    std::vector<size_t> places;
  };
  std::vector<Part> by_pod(placement.pods.size());
  for (const size_t place : *wanted) {
    if (choice >= choices[place].count) continue;
    Part& part = by_pod[choices[place].pods[choice]];
    part.ids.push_back(ids[place]);
    part.places.push_back(place);
  }
  std::vector<std::shared_ptr<Pod>> asked;
  auto parts = std::make_shared<std::vector<Part>>();
  for (size_t pod = 0; pod < by_pod.size(); ++pod) {
    if (by_pod[pod].ids.empty()) continue;
    asked.push_back(placement.pods[pod]);
    parts->push_back(std::move(by_pod[pod]));
  }
  std::vector<absl::StatusOr<Values>> answers = AskPods<Values>(
      asked, {.deadline = terms.deadline},
      [parts, terms](size_t i, RemoteCache& cache) { return cache.FetchBlocks((*parts)[i].ids, terms); });
  wanted->clear();
  bool any = false;
  for (size_t a = 0; a < answers.size(); ++a) {
    any = any || answers[a].ok();
    const Part& part = (*parts)[a];
    for (size_t i = 0; i < part.places.size(); ++i) {
      const size_t place = part.places[i];
      if (!answers[a].ok() || !(*answers[a])[i].has_value()) {
        wanted->push_back(place);
        continue;
      }
      (*values)[place] = std::move((*answers[a])[i]);
      if (choice > 0) sites_.Put(part.ids[i].key, asked[a]->id());
    }
  }
  return any;
}

absl::StatusOr<Values> ShardedCache::FetchBlocks(absl::Span<const BlockId> ids, const ReadTerms& terms) {
  const std::shared_ptr<const Placement> placement = impl_->pods_.placement();
  if (placement->pods.empty()) return NobodyThere();
  Values values(ids.size());
  std::vector<PodChoices> choices;
  std::vector<size_t> wanted;
  for (size_t i = 0; i < ids.size(); ++i) {
    const bool same = i > 0 && ids[i].key == ids[i - 1].key;  // layers of one block
    choices.push_back(same ? choices.back()
                           : ChoicesToRead(ids[i].key, *placement, impl_->sites_, impl_->options_.copies));
    wanted.push_back(i);
  }
  bool any = ids.empty();
  for (int choice = 0; choice < kMostPodChoices && !wanted.empty(); ++choice) {
    any = impl_->FetchRound(*placement, ids, choices, choice, terms, &wanted, &values) || any;
  }
  if (!any && impl_->pods_.placement()->pods.empty()) return NobodyThere();
  for (const std::optional<std::string>& value : values) {
    if (!value.has_value()) continue;
    impl_->fetched_blocks_.fetch_add(1);
    impl_->fetched_bytes_.fetch_add(static_cast<int64_t>(value->size()));
  }
  return values;
}

BlockCacheStats ShardedCache::Stats() const {
  BlockCacheStats stats;
  stats.offloaded_blocks = impl_->offloads_.blocks;
  stats.offloaded_bytes = impl_->offloads_.bytes;
  stats.offload_failures = impl_->offloads_.failures;
  stats.degraded_blocks = impl_->offloads_.degraded;
  stats.recalled_rows = impl_->recalled_rows_;
  stats.recalled_bytes = impl_->recalled_bytes_;
  stats.missing_rows = impl_->missing_rows_;
  stats.fetched_blocks = impl_->fetched_blocks_;
  stats.fetched_bytes = impl_->fetched_bytes_;
  stats.degraded_manifests = impl_->manifests_.degraded();
  stats.repaired_manifests = impl_->manifests_.repaired();
  using State = CachePodStats::State;
  const std::shared_ptr<const Placement> placement = impl_->pods_.placement();
  for (const std::shared_ptr<Pod>& pod : impl_->pods_.all()) {
    CachePodStats& one = stats.pods.emplace_back(pod->Stats());
    stats.reconnects += one.reconnects;
    stats.resent_blocks += one.resent_blocks;
    stats.refetched_blocks += one.refetched_blocks;
    const int index = placement->IndexOf(pod->id());
    if (index < 0) {
      // When it answers it is not in use yet, or it is another address of one that is.
      if (one.state != State::kDown) one.state = State::kConnecting;
    } else if (one.state == State::kUp || one.state == State::kSlowStart) {
      one.weight = placement->shares[index].weight;
      one.state = one.weight < 1 ? State::kSlowStart : State::kUp;
    }
  }
  return stats;
}

absl::Status ShardedCache::Put(const SessionManifest& manifest, absl::Time deadline) {
  return impl_->manifests_.Put(manifest, deadline);
}

absl::StatusOr<std::optional<SessionManifest>> ShardedCache::Get(std::string_view tenant, std::string_view session_id,
                                                                 absl::Time deadline) {
  return impl_->manifests_.Get(tenant, session_id, deadline);
}

absl::Status ShardedCache::Delete(std::string_view tenant, std::string_view session_id, absl::Time deadline) {
  return impl_->manifests_.Delete(tenant, session_id, deadline);
}

absl::Status ShardedCache::CopyManifest(const SessionManifest& manifest, absl::Time deadline) {
  return impl_->manifests_.CopyIn(manifest, deadline);
}

int ShardedCache::WaitForPods(absl::Time deadline) {
  impl_->pods_.WaitUntilKnown(deadline);
  const std::shared_ptr<const Placement> placement = impl_->pods_.placement();
  return static_cast<int>(std::count_if(placement->shares.begin(), placement->shares.end(),
                                        [](const PodShare& share) { return share.takes_new; }));
}

}  // namespace tidepool
