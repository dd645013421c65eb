#include "worker/kv/batch_recall.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/checksum.h"
#include "base/mutex.h"

namespace tidepool {
namespace {

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

 private:
  Mutex mutex_;
  CondVar arrived_;
  std::optional<absl::StatusOr<RecalledRows>> rows_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

// Rows wanted of one stored block and kv head, by one slice; `wants` in ascending position.
struct BatchRecall::Group {
  RowSelection selection;
  std::vector<Want> wants;
};

struct RowRecall::Inflight {
  std::shared_ptr<Mailbox> mailbox = std::make_shared<Mailbox>();
  absl::Time deadline;
  struct Row {
    int layer, kv_head;
    int32_t position;
  };
  std::vector<RowSelection> selections;
  std::vector<Row> rows;                           // of the selections, in order
  std::vector<std::pair<Row, std::string>> local;  // were in host memory still, with their bytes
  std::vector<Row> victims;                        // recall slots that may be taken, best victim first
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
  const int heads = backend_->layout().kv_heads;
  choices_.assign(slices_.size(), std::vector<RowChoice>(heads));
  async_choices_.assign(slices_.size(), {});
  for (size_t i = 0; i < slices_.size(); ++i) {
    if (!Active(slices_[i])) continue;
    InstallArrived(slices_[i]);
    if (!Synchronous(slices_[i])) async_choices_[i].resize(static_cast<size_t>(backend_->layout().layers) * heads);
  }
}

void BatchRecall::BeforeAttention(int layer, absl::Span<const SliceQueries> queries) {
  const KvLayout& layout = backend_->layout();
  const int heads = layout.kv_heads, group = query_heads_ / heads;
  struct Unit {
    int slice, kv_head;
  };
  std::vector<Unit> units;
  for (size_t i = 0; i < slices_.size(); ++i) {
    const RecallSlice& slice = slices_[i];
    if (slice.ring != nullptr) {
      for (int token = std::max(0, slice.tokens - slice.ring->window()); token < slice.tokens; ++token) {
        slice.ring->Push(layer, queries[i].Head(token, 0, layout.head_dim));
      }
    }
    if (!Active(slice)) continue;
    for (int kv_head = 0; kv_head < heads; ++kv_head) units.push_back({static_cast<int>(i), kv_head});
  }
  if (units.empty()) return;

  backend_->ParallelFor(static_cast<int64_t>(units.size()), [&](int64_t u) {
    const RecallSlice& slice = slices_[units[u].slice];
    const int kv_head = units[u].kv_head;
    // The last token's queries choose: slices with recall have one token (Context::NextChunk).
    std::vector<const float*> q;
    for (int g = 0; g < group; ++g) {
      q.push_back(queries[units[u].slice].Head(slice.tokens - 1, kv_head * group + g, layout.head_dim));
    }
    const bool exact = Synchronous(slice);
    RowChoice choice = slice.recall->Choose(*slice.rows, *slice.log, layer, kv_head, q, slice.first_position, exact);
    if (exact) {
      choices_[units[u].slice][kv_head] = std::move(choice);
    } else {
      async_choices_[units[u].slice][layer * heads + kv_head] = std::move(choice);
    }
  });

  std::vector<Want> wants;
  for (const Unit& unit : units) {
    if (!Synchronous(slices_[unit.slice])) continue;
    for (int32_t position : choices_[unit.slice][unit.kv_head].wanted) {
      wants.push_back({unit.slice, layer, unit.kv_head, position});
    }
  }
  if (!wants.empty()) Fetch(std::move(wants), layer);
}

std::vector<BatchRecall::Group> BatchRecall::GroupByBlock(std::vector<Want>& wants,
                                                          absl::Span<const RecallSlice> slices) {
  std::sort(wants.begin(), wants.end(), [](const Want& a, const Want& b) {
    return std::tie(a.slice, a.layer, a.kv_head, a.position) < std::tie(b.slice, b.layer, b.kv_head, b.position);
  });
  std::vector<Group> groups;
  for (const Want& want : wants) {
    const int32_t block = want.position / kBlockTokens;
    const BlockKey& key = slices[want.slice].log->keys()[block];
    const bool same = !groups.empty() && groups.back().wants.back().slice == want.slice &&
                      groups.back().wants.back().layer == want.layer &&
                      groups.back().selection.kv_head == want.kv_head &&
                      groups.back().wants.back().position / kBlockTokens == block;
    if (!same) {
      groups.emplace_back();
      groups.back().selection = {{key, want.layer}, want.kv_head, 0};
    }
    groups.back().selection.row_mask |= uint64_t{1} << (want.position % kBlockTokens);
    groups.back().wants.push_back(want);
  }
  return groups;
}

void BatchRecall::Fetch(std::vector<Want> wants, int layer) {
  const size_t row_bytes = backend_->layout().row_bytes();
  std::string row(row_bytes, '\0');
  std::vector<Want> remote;
  for (const Want& want : wants) {
    if (slices_[want.slice].log->CopyLocalRow(want.position, layer, want.kv_head, row.data())) {
      Install(slices_[want.slice], layer, want.kv_head, want.position, row.data(),
              choices_[want.slice][want.kv_head].victims);
    } else {
      remote.push_back(want);
    }
  }
  if (remote.empty()) return;
  const std::vector<Group> groups = GroupByBlock(remote, slices_);
  std::vector<RowSelection> selections;
  for (const Group& group : groups) selections.push_back(group.selection);
  auto mailbox = std::make_shared<Mailbox>();
  const absl::Time deadline = absl::Now() + sync_deadline_;
  cache_->Recall(std::move(selections), deadline,
                 [mailbox](absl::StatusOr<RecalledRows> rows) { mailbox->Put(std::move(rows)); });
  std::optional<absl::StatusOr<RecalledRows>> answer = mailbox->TakeBy(deadline + absl::Seconds(1));

  const bool came = answer.has_value() && answer->ok() && (*answer)->found.size() == groups.size();
  size_t next = 0;
  for (size_t g = 0; g < groups.size(); ++g) {
    for (const Want& want : groups[g].wants) {
      RowRecall& recall = *slices_[want.slice].recall;
      bool installed = false;
      if (came && ((*answer)->found[g] >> (want.position % kBlockTokens) & 1) != 0) {
        const RecalledRows& rows = **answer;
        if (rows.rows.size() >= (next + 1) * row_bytes && next < rows.row_checksums.size()) {
          const std::string_view bytes = std::string_view(rows.rows).substr(next * row_bytes, row_bytes);
          if (Checksum32(bytes) == rows.row_checksums[next]) {
            Install(slices_[want.slice], layer, want.kv_head, want.position, bytes.data(),
                    choices_[want.slice][want.kv_head].victims);
            recall.counters().recalled_bytes += static_cast<int64_t>(row_bytes);
            installed = true;
          }
        }
        ++next;
      } else if (came) {
        slices_[want.slice].log->MarkLost(want.position / kBlockTokens, want.layer);  // not asked for again
      }
      if (installed) continue;
      ++recall.counters().lost_rows;
      if (recall.spec().on_loss == OnRecallLoss::kFail && recall.failure().ok()) {
        const absl::Status reason = !answer.has_value() ? absl::DeadlineExceededError("no answer")
                                    : !answer->ok()     ? answer->status()
                                                        : absl::NotFoundError("the block is not stored");
        recall.set_failure(absl::UnavailableError(absl::StrCat("recall: position ", want.position, " of layer ",
                                                               want.layer, " is lost: ", reason.message())));
      }
    }
  }
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
  const KvLayout& layout = backend_->layout();
  for (size_t i = 0; i < slices_.size(); ++i) {
    if (async_choices_[i].empty()) continue;
    RecallSlice& slice = slices_[i];
    auto inflight = std::make_shared<RowRecall::Inflight>();
    std::vector<Want> wants;
    std::string row(layout.row_bytes(), '\0');
    for (int layer = 0; layer < layout.layers; ++layer) {
      for (int kv_head = 0; kv_head < layout.kv_heads; ++kv_head) {
        const RowChoice& choice = async_choices_[i][layer * layout.kv_heads + kv_head];
        for (int32_t position : choice.victims) inflight->victims.push_back({layer, kv_head, position});
        for (int32_t position : choice.wanted) {
          if (slice.log->CopyLocalRow(position, layer, kv_head, row.data())) {
            inflight->local.emplace_back(RowRecall::Inflight::Row{layer, kv_head, position}, row);
          } else {
            wants.push_back({static_cast<int>(i), layer, kv_head, position});
          }
        }
      }
    }
    if (wants.empty() && inflight->local.empty()) continue;
    inflight->deadline = absl::Now() + absl::Milliseconds(slice.recall->spec().budget_ms);
    for (Group& group : GroupByBlock(wants, slices_)) {
      inflight->selections.push_back(group.selection);
      for (const Want& want : group.wants) inflight->rows.push_back({want.layer, want.kv_head, want.position});
    }
    if (!inflight->selections.empty()) {
      cache_->Recall(
          inflight->selections, inflight->deadline,
          [mailbox = inflight->mailbox](absl::StatusOr<RecalledRows> rows) { mailbox->Put(std::move(rows)); });
    }
    slice.recall->inflight = std::move(inflight);
  }
}

void BatchRecall::InstallArrived(RecallSlice& slice) {
  RowRecall& recall = *slice.recall;
  if (recall.inflight == nullptr) return;
  const std::shared_ptr<RowRecall::Inflight> inflight = std::exchange(recall.inflight, nullptr);
  const size_t row_bytes = backend_->layout().row_bytes();
  // Victims of each (layer, kv head), in the order in which they may be taken.
  const int heads = backend_->layout().kv_heads;
  std::vector<std::vector<int32_t>> victims(static_cast<size_t>(backend_->layout().layers) * heads);
  for (const RowRecall::Inflight::Row& row : inflight->victims)
    victims[row.layer * heads + row.kv_head].push_back(row.position);
  auto install = [&](const RowRecall::Inflight::Row& row, const char* bytes) {
    Install(slice, row.layer, row.kv_head, row.position, bytes, victims[row.layer * heads + row.kv_head]);
  };

  for (const auto& [row, bytes] : inflight->local) install(row, bytes.data());
  if (inflight->selections.empty()) return;
  std::optional<absl::StatusOr<RecalledRows>> answer = inflight->mailbox->TakeBy(inflight->deadline);
  if (!answer.has_value() || (!answer->ok() && absl::IsDeadlineExceeded(answer->status()))) {
    recall.counters().late_rows += static_cast<int64_t>(inflight->rows.size());
    return;
  }
  const bool came = answer->ok() && (*answer)->found.size() == inflight->selections.size();
  size_t row_index = 0, next = 0;
  for (size_t s = 0; s < inflight->selections.size(); ++s) {
    const int wanted = std::popcount(inflight->selections[s].row_mask);
    for (int k = 0; k < wanted; ++k, ++row_index) {
      const RowRecall::Inflight::Row& row = inflight->rows[row_index];
      bool good = false;
      if (came && ((*answer)->found[s] >> (row.position % kBlockTokens) & 1) != 0) {
        const RecalledRows& rows = **answer;
        if (rows.rows.size() >= (next + 1) * row_bytes && next < rows.row_checksums.size()) {
          const std::string_view bytes = std::string_view(rows.rows).substr(next * row_bytes, row_bytes);
          if (Checksum32(bytes) == rows.row_checksums[next]) {
            install(row, bytes.data());
            recall.counters().recalled_bytes += static_cast<int64_t>(row_bytes);
            good = true;
          }
        }
        ++next;
      } else if (came) {
        slice.log->MarkLost(row.position / kBlockTokens, row.layer);
      }
      if (!good) ++recall.counters().lost_rows;
    }
  }
}

}  // namespace tidepool
