#include "worker/kv/batch_recall.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/checksum.h"
#include "base/log.h"
#include "base/mutex.h"

namespace tidepool {
namespace {

// Asynchronous requests of a sequence in a step: early layers' rows travel while later layers compute.
constexpr int kSendsPerStep = 3;

// After the service has let a deadline pass: how long it is not asked, and how long it is waited for then.
constexpr absl::Duration kShortestPause = absl::Seconds(1), kLongestPause = absl::Seconds(30),
                         kProbe = absl::Seconds(1);

// The answer to a Recall, handed from the cache's thread to ours.
class Mailbox {
 public:
  void Put(absl::StatusOr<RecalledRows> rows) {
    MutexLock lock(&mutex_);
    rows_ = std::move(rows);
    arrived_.SignalAll();
  }
  // nullopt when nothing has come by the deadline.
  std::optional<absl::StatusOr<RecalledRows>> TakeBy(absl::Time deadline) {
    MutexLock lock(&mutex_);
    const auto until = std::chrono::steady_clock::now() + absl::ToChronoMicroseconds(deadline - absl::Now());
    while (!rows_.has_value()) {
      if (!arrived_.WaitUntil(&mutex_, until)) break;
    }
    return std::exchange(rows_, std::nullopt);
  }
  std::optional<absl::StatusOr<RecalledRows>> TryTake() {
    MutexLock lock(&mutex_);
    return std::exchange(rows_, std::nullopt);
  }

 private:
  Mutex mutex_;
  CondVar arrived_;
  std::optional<absl::StatusOr<RecalledRows>> rows_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

struct RowRecall::Inflight {
  std::shared_ptr<Mailbox> mailbox = std::make_shared<Mailbox>();
  absl::Time deadline;
  std::vector<MissingGroup> groups;
};

BatchRecall::BatchRecall(Backend* backend, BlockCache* cache, int query_heads, absl::Duration sync_deadline)
    : backend_(backend), cache_(cache), query_heads_(query_heads), sync_deadline_(sync_deadline) {}

bool BatchRecall::Active(const RecallSlice& slice) const {
  return slice.recall != nullptr && slice.recall->slots() > 0;
}

bool BatchRecall::Synchronous(const RecallSlice& slice) const {
  return slice.prompt || slice.recall->spec().mode == RecallMode::kSync;
}

void BatchRecall::Begin(std::vector<RecallSlice> slices) {
  slices_ = std::move(slices);
  choices_.assign(slices_.size(), std::vector<RowChoice>(backend_->layout().kv_heads));
  asks_.assign(slices_.size(), {});
  const absl::Time now = absl::Now();
  silent_ = now < ask_again_;
  step_deadline_ = now + (pause_ > absl::ZeroDuration() ? std::min(kProbe, sync_deadline_) : sync_deadline_);
}

void BatchRecall::BeforeAttention(int layer, absl::Span<const SliceQueries> queries) {
  const KvLayout& layout = backend_->layout();
  const int heads = layout.kv_heads, group = query_heads_ / heads;
  std::vector<Unit> units;
  for (size_t i = 0; i < slices_.size(); ++i) {
    const RecallSlice& slice = slices_[i];
    if (slice.ring != nullptr) {
      for (int token = std::max(0, slice.tokens - slice.ring->window()); token < slice.tokens; ++token) {
        slice.ring->Push(layer, queries[i].Head(token, 0, layout.head_dim));
      }
    }
    if (!Active(slice)) continue;
    StageArrived(slices_[i]);
    for (int kv_head = 0; kv_head < heads; ++kv_head) units.push_back({static_cast<int>(i), kv_head});
  }
  if (units.empty()) return;

  // The last token's queries choose: slices with recall have one token (Context::NextChunk).
  std::vector<UnitQueries> queries_of(units.size());
  for (size_t u = 0; u < units.size(); ++u) {
    const RecallSlice& slice = slices_[units[u].slice];
    for (int g = 0; g < group; ++g) {
      queries_of[u].push_back(
          queries[units[u].slice].Head(slice.tokens - 1, units[u].kv_head * group + g, layout.head_dim));
    }
  }
  if (scores_.size() < units.size()) scores_.resize(units.size());
  far_.resize(units.size());
  backend_->ParallelFor(static_cast<int64_t>(units.size()), [&](int64_t u) {
    const RecallSlice& slice = slices_[units[u].slice];
    slice.recall->Score(*slice.rows, *slice.log, layer, units[u].kv_head, queries_of[u], slice.first_position,
                        Synchronous(slice), scores_[u]);
    CompareNear(layer, units[u], queries_of[u], u);
  });
  CompareFar(layer, units, queries_of);
  backend_->ParallelFor(static_cast<int64_t>(units.size()), [&](int64_t u) {
    const RecallSlice& slice = slices_[units[u].slice];
    choices_[units[u].slice][units[u].kv_head] =
        slice.recall->Choose(layer, units[u].kv_head, scores_[u], Synchronous(slice));
  });

  std::vector<MissingRow> missing;
  for (const Unit& unit : units) Serve(layer, unit.slice, unit.kv_head, &missing);
  if (!missing.empty()) {
    Fetch(std::move(missing), [&](const MissingRow& row, const char* bytes) {
      Install(slices_[row.slice], row.layer, row.kv_head, row.position, bytes,
              choices_[row.slice][row.kv_head].victims);
    });
  }
  if ((layer + 1) % ((layout.layers + kSendsPerStep - 1) / kSendsPerStep) == 0) {
    for (size_t i = 0; i < slices_.size(); ++i) Send(static_cast<int>(i));
  }
}

// A row is taken where it is found: acknowledged a moment later, it would be local no more.
void BatchRecall::CompareNear(int layer, const Unit& unit, const UnitQueries& queries, size_t u) {
  const RecallSlice& slice = slices_[unit.slice];
  const HeadRows& head = slice.rows->head(layer, unit.kv_head);
  std::string copy(backend_->layout().row_bytes(), '\0');
  far_[u].clear();
  for (int32_t candidate : scores_[u].shortlist) {
    const int32_t position = scores_[u].positions[candidate];
    const char* row = LocalRow(slice, layer, unit.kv_head, position, copy.data());
    if (row == nullptr && scores_[u].resident[candidate]) {
      backend_->ReadRows(*slice.rows, layer, unit.kv_head, {head.Find(position)}, copy.data());
      row = copy.data();
    }
    if (row == nullptr) {
      far_[u].push_back(candidate);
    } else {
      slice.recall->Compare(queries, candidate, row, scores_[u]);
    }
  }
}

void BatchRecall::CompareFar(int layer, absl::Span<const Unit> units, absl::Span<const UnitQueries> queries) {
  std::vector<MissingRow> missing;
  for (size_t u = 0; u < units.size(); ++u) {
    if (!Synchronous(slices_[units[u].slice])) continue;
    for (int32_t candidate : far_[u]) {
      missing.push_back({units[u].slice, layer, units[u].kv_head, scores_[u].positions[candidate], /*wanted=*/false});
    }
  }
  if (missing.empty()) return;
  Fetch(std::move(missing), [&](const MissingRow& row, const char* bytes) {
    for (size_t u = 0; u < units.size(); ++u) {
      if (units[u].slice != row.slice || units[u].kv_head != row.kv_head) continue;
      const std::vector<int32_t>& positions = scores_[u].positions;
      const auto at = std::lower_bound(positions.begin(), positions.end(), row.position);
      slices_[row.slice].recall->Compare(queries[u], static_cast<int32_t>(at - positions.begin()), bytes, scores_[u]);
    }
  });
}

void BatchRecall::Serve(int layer, int slice_index, int kv_head, std::vector<MissingRow>* missing) {
  RecallSlice& slice = slices_[slice_index];
  RowChoice& choice = choices_[slice_index][kv_head];
  const bool wait = Synchronous(slice);
  std::string copy(backend_->layout().row_bytes(), '\0');
  auto ask = [&](int32_t position, bool wanted) {
    if (slice.recall->asked.insert(slice.recall->RowId(layer, kv_head, position)).second) {
      asks_[slice_index].push_back({slice_index, layer, kv_head, position, wanted});
    }
  };
  for (int32_t position : choice.wanted) {
    if (const char* row = LocalRow(slice, layer, kv_head, position, copy.data()); row != nullptr) {
      Install(slice, layer, kv_head, position, row, choice.victims);
    } else if (wait) {
      missing->push_back({slice_index, layer, kv_head, position, true});
    } else {
      ask(position, true);
    }
  }
  int32_t block = -1;
  bool stored = false;
  for (int32_t position : choice.ahead) {
    if (position / kBlockTokens != block) {
      block = position / kBlockTokens;
      stored = slice.log->IsStored(block, layer);  // else it is in host memory
    }
    if (stored) ask(position, false);
  }
}

const char* BatchRecall::LocalRow(const RecallSlice& slice, int layer, int kv_head, int32_t position, char* row) const {
  if (const char* staged = slice.recall->staging().Find(HeadIndex(layer, kv_head), position); staged != nullptr) {
    return staged;
  }
  return slice.log->CopyLocalRow(position, layer, kv_head, row) ? row : nullptr;
}

std::vector<MissingGroup> BatchRecall::GroupByBlock(std::vector<MissingRow>& missing) const {
  std::sort(missing.begin(), missing.end(), [](const MissingRow& a, const MissingRow& b) {
    return std::tie(a.slice, a.layer, a.kv_head, a.position) < std::tie(b.slice, b.layer, b.kv_head, b.position);
  });
  std::vector<MissingGroup> groups;
  for (const MissingRow& row : missing) {
    const int32_t block = row.position / kBlockTokens;
    const MissingRow* last = groups.empty() ? nullptr : &groups.back().rows.back();
    if (last == nullptr || last->slice != row.slice || last->layer != row.layer || last->kv_head != row.kv_head ||
        last->position / kBlockTokens != block) {
      groups.emplace_back();
      groups.back().selection = {{slices_[row.slice].log->keys()[block], row.layer}, row.kv_head, 0};
    }
    groups.back().selection.row_mask |= uint64_t{1} << (row.position % kBlockTokens);
    groups.back().rows.push_back(row);
  }
  return groups;
}

void BatchRecall::ForEachRow(
    const absl::StatusOr<RecalledRows>* answer, absl::Span<const MissingGroup> groups,
    absl::FunctionRef<void(const MissingRow&, const char* bytes, const absl::Status& why)> take) const {
  const size_t row_bytes = backend_->layout().row_bytes();
  absl::Status none;
  if (answer == nullptr) {
    none = absl::DeadlineExceededError("no answer in time");
  } else if (!answer->ok()) {
    none = answer->status();
  } else if ((*answer)->found.size() != groups.size()) {
    none = absl::InternalError("the answer is to another question");
  }
  size_t next = 0;
  for (size_t g = 0; g < groups.size(); ++g) {
    for (const MissingRow& row : groups[g].rows) {
      if (!none.ok()) {
        take(row, nullptr, none);
        continue;
      }
      const RecalledRows& rows = **answer;
      if ((rows.found[g] >> (row.position % kBlockTokens) & 1) == 0) {
        take(row, nullptr,
             rows.complete ? absl::NotFoundError("the block is not stored")
                           : absl::DeadlineExceededError("the service ran out of time"));
        continue;
      }
      const std::string_view bytes = rows.rows.size() >= (next + 1) * row_bytes && next < rows.row_checksums.size()
                                         ? std::string_view(rows.rows).substr(next * row_bytes, row_bytes)
                                         : std::string_view();
      if (!bytes.empty() && Checksum32(bytes) == rows.row_checksums[next]) {
        take(row, bytes.data(), absl::OkStatus());
      } else {
        take(row, nullptr, absl::DataLossError("its checksum differs"));
      }
      ++next;
    }
  }
}

void BatchRecall::Miss(RecallSlice& slice, const MissingRow& row, const absl::Status& why, bool waited) const {
  RowRecall& recall = *slice.recall;
  if (absl::IsNotFound(why) || absl::IsDataLoss(why)) {
    slice.log->MarkLost(row.position / kBlockTokens, row.layer);  // not asked for again
  }
  if (!row.wanted) return;
  if (!waited && absl::IsDeadlineExceeded(why)) {
    ++recall.counters().late_rows;
    return;
  }
  ++recall.counters().lost_rows;
  if (recall.spec().on_loss == OnRecallLoss::kFail && recall.failure().ok()) {
    recall.set_failure(absl::UnavailableError(
        absl::StrCat("recall: position ", row.position, " of layer ", row.layer, " is lost: ", why.message())));
  }
}

void BatchRecall::Fetch(std::vector<MissingRow> missing,
                        absl::FunctionRef<void(const MissingRow& row, const char* bytes)> take) {
  const std::vector<MissingGroup> groups = GroupByBlock(missing);
  std::optional<absl::StatusOr<RecalledRows>> answer;
  if (!silent_) {
    std::vector<RowSelection> selections;
    for (const MissingGroup& group : groups) selections.push_back(group.selection);
    auto mailbox = std::make_shared<Mailbox>();
    cache_->Recall(std::move(selections), step_deadline_,
                   [mailbox](absl::StatusOr<RecalledRows> rows) { mailbox->Put(std::move(rows)); });
    answer = mailbox->TakeBy(step_deadline_ + absl::Seconds(1));
    const bool late = !answer.has_value() || absl::IsDeadlineExceeded(answer->status());
    pause_ = late ? std::clamp(2 * pause_, kShortestPause, kLongestPause) : absl::ZeroDuration();
    if (late) {
      silent_ = true;
      ask_again_ = absl::Now() + pause_;
      TP_LOG(Warning, "recall", "the cache service does not answer in time; asked again in ",
             absl::FormatDuration(pause_));
    }
  }
  ForEachRow(answer.has_value() ? &*answer : nullptr, groups,
             [&](const MissingRow& row, const char* bytes, const absl::Status& why) {
               RecallSlice& slice = slices_[row.slice];
               if (bytes == nullptr) return Miss(slice, row, why, /*waited=*/true);
               take(row, bytes);
               slice.recall->staging().Put(HeadIndex(row.layer, row.kv_head), row.position, bytes);
               slice.recall->counters().recalled_bytes += static_cast<int64_t>(backend_->layout().row_bytes());
             });
}

void BatchRecall::Install(RecallSlice& slice, int layer, int kv_head, int32_t position, const char* row,
                          std::vector<int32_t>& victims) {
  HeadRows& head = slice.rows->head(layer, kv_head);
  RowRecall& recall = *slice.recall;
  int32_t slot = head.Find(position);
  if (slot >= 0) {
    if (head.merged()[slot] == 0) return;
    head.merged()[slot] = 0;  // a mixture becomes its own row again; what was merged into it is recalled by itself
  } else {
    if (head.recalled_rows() >= recall.slots()) {
      int32_t victim = -1;
      while (!victims.empty() && victim < 0) {
        victim = head.Find(victims.front());
        victims.erase(victims.begin());
        if (victim >= 0 && head.kind(victim) != RowKind::kRecalled) victim = -1;
      }
      if (victim < 0) return;
      head.Remove(victim);
    }
    slot = head.Add(slice.rows->pool(), position, RowKind::kRecalled);
  }
  backend_->WriteRow(*slice.rows, layer, kv_head, slot, row);
  ++recall.counters().recalled_rows;
}

void BatchRecall::End() {
  for (size_t i = 0; i < slices_.size(); ++i) Send(static_cast<int>(i));
}

void BatchRecall::Send(int slice) {
  if (asks_[slice].empty()) return;
  std::vector<MissingRow> missing = std::exchange(asks_[slice], {});
  RowRecall& recall = *slices_[slice].recall;
  auto inflight = std::make_shared<RowRecall::Inflight>();
  inflight->deadline = absl::Now() + absl::Milliseconds(recall.spec().budget_ms);
  inflight->groups = GroupByBlock(missing);
  std::vector<RowSelection> selections;
  for (const MissingGroup& group : inflight->groups) selections.push_back(group.selection);
  cache_->Recall(std::move(selections), inflight->deadline,
                 [mailbox = inflight->mailbox](absl::StatusOr<RecalledRows> rows) { mailbox->Put(std::move(rows)); });
  recall.inflight.push_back(std::move(inflight));
}

void BatchRecall::StageArrived(RecallSlice& slice) {
  RowRecall& recall = *slice.recall;
  std::erase_if(recall.inflight, [&](const std::shared_ptr<RowRecall::Inflight>& inflight) {
    const std::optional<absl::StatusOr<RecalledRows>> answer = inflight->mailbox->TryTake();
    if (!answer.has_value() && absl::Now() <= inflight->deadline) return false;
    ForEachRow(answer.has_value() ? &*answer : nullptr, inflight->groups,
               [&](const MissingRow& row, const char* bytes, const absl::Status& why) {
                 recall.asked.erase(recall.RowId(row.layer, row.kv_head, row.position));
                 if (bytes == nullptr) return Miss(slice, row, why, /*waited=*/false);
                 recall.staging().Put(HeadIndex(row.layer, row.kv_head), row.position, bytes);
                 recall.counters().recalled_bytes += static_cast<int64_t>(backend_->layout().row_bytes());
               });
    return true;
  });
}

}  // namespace tidepool
