// What BatchRecall asks the cache service for, and what comes of it.
#include <algorithm>
#include <bit>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "worker/kv/batch_recall.h"
#include "worker/kv/recall_mailbox.h"

namespace tidepool {
namespace {

// Rows that are fetched ahead, and those that matter little, are asked for when so many have come together or so many
// steps have passed: what a request costs beside its rows is as much as a hundred of them.
constexpr int64_t kManyRows = 512;
constexpr int kPatientSteps = 4;

// After the service has let a deadline pass: how long it is not asked.
constexpr absl::Duration kShortestPause = absl::Seconds(1), kLongestPause = absl::Seconds(30);

// Rows that the sequences of a batch have under way, by the milliseconds that a request may take: what is more waits
// for a later step. Answers that begin, and those that begin together all the more, want more at once than comes in
// time, and then all of it would be late. A request is not worth its while for less than half of that.
constexpr int64_t kBytesPerMillisecond = 64 << 10;

// Steps in a row in which asynchronous requests come to nothing, before the service is left alone, and for how long
// then.
constexpr int kMostUnanswered = 8;
constexpr absl::Duration kShortestRest = absl::Seconds(1), kLongestRest = absl::Seconds(8);

void CountAnswer(const std::optional<absl::StatusOr<RecalledRows>>& answer, RecallMailbox& mailbox,
                 RecallRequests::Mode& requests) {
  if (!answer.has_value() || absl::IsDeadlineExceeded(answer->status())) {
    ++requests.late;
  } else if (!answer->ok()) {
    ++requests.failed;
  } else {
    ++requests.answered;
    requests.seconds.Observe(absl::ToDoubleSeconds(mailbox.took()));
  }
}

}  // namespace

struct RowRecall::Inflight {
  std::shared_ptr<RecallMailbox> mailbox = std::make_shared<RecallMailbox>();
  absl::Time deadline;
  std::vector<MissingRows> groups;
  int64_t bytes = 0;  // of their rows
};

std::vector<RowSelection> BatchRecall::SelectionsOf(absl::Span<const MissingRows> groups) const {
  std::vector<RowSelection> selections;
  selections.reserve(groups.size());
  for (const MissingRows& group : groups) {
    selections.push_back({{slices_[group.slice].log->keys()[group.block], group.layer}, group.kv_head, group.rows});
  }
  return selections;
}

void BatchRecall::Miss(RecallSlice& slice, const MissingRows& of, int32_t position, const absl::Status& why,
                       bool waited) const {
  RowRecall& recall = *slice.recall;
  RecallMeter::Group* meter = Meter(slice, of.layer);
  if (absl::IsNotFound(why) || absl::IsDataLoss(why)) slice.log->MarkLost(of.block, of.layer);  // not asked for again
  if ((of.wanted & MissingRows::Bit(position)) == 0) return;
  if (!waited && absl::IsDeadlineExceeded(why)) {
    ++recall.counters().late_rows;
    if (meter != nullptr) ++meter->late_rows;
    return;
  }
  ++recall.counters().lost_rows;
  if (meter != nullptr) ++meter->lost_rows;
  if (recall.spec().on_loss != OnRecallLoss::kContinue && recall.failure().ok()) {
    recall.set_failure(absl::UnavailableError(
        absl::StrCat("recall: position ", position, " of layer ", of.layer, " is lost: ", why.message())));
  }
}

void BatchRecall::Fetch(const std::vector<MissingRows>& missing,
                        absl::FunctionRef<void(const MissingRows& of, int32_t position, const char* bytes)> take) {
  std::optional<absl::StatusOr<RecalledRows>> came;
  if (!silent_) {
    auto mailbox = std::make_shared<RecallMailbox>();
    cache_->Recall(SelectionsOf(missing), step_deadline_,
                   [mailbox](absl::StatusOr<RecalledRows> rows) { mailbox->Put(std::move(rows)); });
    came = mailbox->TakeBy(step_deadline_ + absl::Seconds(1));
    CountAnswer(came, *mailbox, requests_.sync);
    const bool late = !came.has_value() || absl::IsDeadlineExceeded(came->status());
    pause_ = late ? std::clamp(2 * pause_, kShortestPause, kLongestPause) : absl::ZeroDuration();
    if (late) {
      silent_ = true;
      ask_again_ = absl::Now() + pause_;
      TP_LOG(Warning, "recall", "the cache service does not answer in time; asked again in ",
             absl::FormatDuration(pause_));
    }
  }
  const MissingAnswer answer(came.has_value() ? &*came : nullptr, missing, backend_->layout().row_bytes());
  for (size_t g = 0; g < missing.size(); ++g) {
    const MissingRows& of = missing[g];
    RecallSlice& slice = slices_[of.slice];
    answer.ForEachRow(g, [&](int32_t position, const char* bytes, const absl::Status& why) {
      if (bytes == nullptr) return Miss(slice, of, position, why, /*waited=*/true);
      take(of, position, bytes);
      slice.recall->staging().Put(HeadIndex(of.layer, of.kv_head), position, bytes);
      slice.recall->counters().recalled_bytes += static_cast<int64_t>(backend_->layout().row_bytes());
    });
  }
}

void BatchRecall::SendOne() {
  if (next_to_send_.load(std::memory_order_relaxed) >= to_send_.size()) return;
  if (sending_.exchange(true, std::memory_order_acquire)) return;  // another thread does
  const size_t next = next_to_send_.load(std::memory_order_relaxed);
  if (next < to_send_.size()) {
    const RowRecall::Inflight& inflight = *to_send_[next];
    if (!inflight.groups.empty()) {  // else it was late before it was sent
      cache_->Recall(
          SelectionsOf(inflight.groups), inflight.deadline,
          [mailbox = inflight.mailbox](absl::StatusOr<RecalledRows> rows) { mailbox->Put(std::move(rows)); });
    }
    next_to_send_.store(next + 1, std::memory_order_relaxed);
  }
  sending_.store(false, std::memory_order_release);
}

void BatchRecall::FindRequests() {
  to_send_.clear();
  next_to_send_ = 0;
  order_.clear();
  int64_t under_way = 0;
  for (size_t i = 0; i < slices_.size(); ++i) {
    const RowRecall* const recall = slices_[i].recall;
    if (recall == nullptr) continue;
    for (const auto& inflight : recall->inflight) under_way += inflight->bytes;
    if (!recall->unsent.groups.empty()) order_.push_back(static_cast<int>(i));
  }
  auto first = [this](int a, int b) {
    const int waits_a = slices_[a].recall->unsent.steps, waits_b = slices_[b].recall->unsent.steps;
    return waits_a != waits_b ? waits_a > waits_b : a < b;
  };
  std::sort(order_.begin(), order_.end(), first);
  for (const int slice : order_) under_way += FindRequest(slice, under_way);
}

bool BatchRecall::AskFor(RowStaging& staging, MissingRows& rows) const {
  const int head = HeadIndex(rows.layer, rows.kv_head);
  uint64_t noted = 0;
  for (uint64_t left = rows.rows; left != 0; left &= left - 1) {
    const int token = std::countr_zero(left);
    if (staging.Ask(head, rows.block * kBlockTokens + token)) noted |= uint64_t{1} << token;
  }
  rows.rows = noted;
  rows.wanted &= noted;
  return noted != 0;
}

int64_t BatchRecall::FindRequest(int slice, int64_t under_way) {
  if (left_alone_) return 0;
  RowRecall& recall = *slices_[slice].recall;
  RowRecall::Unsent& unsent = recall.unsent;
  const bool all_due = unsent.rows >= kManyRows || unsent.steps + 1 >= kPatientSteps;
  if (!unsent.urgent && !all_due) return 0;
  const auto row_bytes = static_cast<int64_t>(backend_->layout().row_bytes());
  const int64_t most = kBytesPerMillisecond * recall.spec().budget_ms, room = (most - under_way) / row_bytes;
  if (2 * under_way > most) return 0;
  RowRecall::Unsent now = std::exchange(unsent, {});
  if (!all_due && recall.is_early()) {
    unsent.groups = TakeAhead(now.groups);  // what the step misses is not to come behind it
    for (const MissingRows& group : unsent.groups) unsent.rows += std::popcount(group.rows);
    unsent.steps = unsent.groups.empty() ? 0 : now.steps;
    if (now.groups.empty()) return 0;  // what it misses is under way
  }
  MergeMissing(now.groups);
  int64_t asked = 0;
  size_t kept = 0;
  for (MissingRows& rows : now.groups) {
    if (asked < room) {
      if (!AskFor(recall.staging(), rows)) continue;
      asked += std::popcount(rows.rows);
      now.groups[kept++] = rows;
    } else {
      unsent.rows += std::popcount(rows.rows);
      unsent.urgent = unsent.urgent || rows.wanted != 0;
      unsent.steps = now.steps;
      unsent.groups.push_back(rows);
    }
  }
  now.groups.resize(kept);
  if (now.groups.empty()) return 0;
  auto inflight = std::make_shared<RowRecall::Inflight>();
  inflight->deadline = absl::Now() + absl::Milliseconds(recall.spec().budget_ms);
  inflight->groups = std::move(now.groups);
  for (MissingRows& rows : inflight->groups) rows.slice = slice;
  inflight->bytes = asked * row_bytes;
  to_send_.push_back(inflight);
  recall.inflight.push_back(std::move(inflight));
  return recall.inflight.back()->bytes;
}

void BatchRecall::TakeAnswers(RecallSlice& slice) {
  RowRecall& recall = *slice.recall;
  std::erase_if(recall.inflight, [&](const std::shared_ptr<RowRecall::Inflight>& inflight) {
    std::optional<absl::StatusOr<RecalledRows>> came = inflight->mailbox->TryTake();
    if (!came.has_value() && absl::Now() <= inflight->deadline) return false;
    CountAnswer(came, *inflight->mailbox, requests_.async);
    NoteAnswer(came.has_value() && came->ok());
    recall.arrived.push_back(
        std::make_unique<ArrivedRows>(std::move(came), std::move(inflight->groups), backend_->layout().row_bytes()));
    return true;
  });
  if (recall.arrived.empty()) return;
  const bool at_once = Synchronous(slice) || backend_->waits_for_hooks();
  for (const auto& arrived : recall.arrived) {
    if (at_once || !arrived->answered()) StageAll(slice, *arrived);
  }
  std::erase_if(recall.arrived, [](const auto& arrived) { return arrived->empty(); });
}

void BatchRecall::NoteAnswer(bool answered) {
  if (answered) {
    unanswered_ = 0;
    rest_ = absl::ZeroDuration();
    rested_ = absl::InfinitePast();
    return;
  }
  if (std::exchange(unanswered_now_, true)) return;  // those of a batch that were asked for together are late together
  if (++unanswered_ < kMostUnanswered || left_alone_) return;
  unanswered_ = kMostUnanswered - 1;  // one more is enough
  rest_ = std::clamp(2 * rest_, kShortestRest, kLongestRest);
  rested_ = absl::Now() + rest_;
  left_alone_ = true;
  TP_LOG(Warning, "recall", "asynchronous requests go unanswered; the cache service is asked again in ",
         absl::FormatDuration(rest_));
}

void BatchRecall::Stage(RowStaging& staging, ArrivedRows& arrived, ArrivedRows::OfHead& head, Staged& staged) const {
  const int index = HeadIndex(head.layer, head.kv_head);
  arrived.TakeRows(head, [&](const MissingRows& of, int32_t position, const char* bytes, const absl::Status& why) {
    if (bytes == nullptr) {
      staging.Forget(index, position);
      staged.missed.push_back({of, position, why});
    } else {
      staging.Put(index, position, bytes);
      ++staged.rows;
    }
  });
}

void BatchRecall::CountStaged(RecallSlice& slice, Staged& staged) const {
  slice.recall->counters().recalled_bytes += staged.rows * static_cast<int64_t>(backend_->layout().row_bytes());
  for (const Staged::Missed& row : staged.missed) Miss(slice, row.of, row.position, row.why, /*waited=*/false);
  staged.rows = 0;
  staged.missed.clear();
}

void BatchRecall::StageAll(RecallSlice& slice, ArrivedRows& arrived) {
  const absl::Span<ArrivedRows::OfHead> heads = arrived.heads();
  std::vector<Staged> staged(heads.size());
  backend_->ParallelFor(static_cast<int64_t>(heads.size()), [&](int64_t i) {
    if (!heads[i].taken) Stage(slice.recall->staging(), arrived, heads[i], staged[i]);
  });
  for (Staged& of_head : staged) CountStaged(slice, of_head);
}

}  // namespace tidepool
