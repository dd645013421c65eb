#include "worker/kv/batch_recall.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "worker/kv/compressor.h"
#include "worker/kv/recall_mailbox.h"

namespace tidepool {
namespace {

// Asynchronous requests of a sequence in a step. A second one would bring early layers' rows sooner, but each wakes
// threads here and in the service, which costs a small model's step more than it gains.
constexpr int kSendsPerStep = 1;

// Rows that are fetched ahead, and those that matter little, are asked for when so many have come together or so many
// steps have passed: what a request costs beside its rows is as much as a hundred of them. What more of a head's
// attention is on is asked for in the step that misses it.
constexpr int64_t kManyRows = 512;
constexpr int kPatientSteps = 4;
constexpr float kUrgentShare = 0.05f;

// After the service has let a deadline pass: how long it is not asked, and how long it is waited for then.
constexpr absl::Duration kShortestPause = absl::Seconds(1), kLongestPause = absl::Seconds(30),
                         kProbe = absl::Seconds(1);

// Asynchronous requests in a row that come to nothing, before the service is left alone, and for how long then.
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
};

BatchRecall::BatchRecall(Backend* backend, BlockCache* cache, int query_heads, absl::Duration sync_deadline)
    : backend_(backend), cache_(cache), query_heads_(query_heads), sync_deadline_(sync_deadline) {}

bool BatchRecall::Active(const RecallSlice& slice) const {
  return slice.recall != nullptr && slice.recall->slots() > 0;
}

bool BatchRecall::Synchronous(const RecallSlice& slice) const {
  return slice.prompt || slice.recall->spec().mode == RecallMode::kSync;
}

bool BatchRecall::ActsInStep() const {
  return std::any_of(slices_.begin(), slices_.end(), [this](const RecallSlice& slice) {
    return Active(slice) && (Synchronous(slice) || !backend_->waits_for_hooks());
  });
}

int BatchRecall::QueriesRead(int slice) const {
  const RecallSlice& of = slices_[slice];
  return std::max(of.ring != nullptr ? of.ring->window() : 0, Active(of) ? 1 : 0);
}

void BatchRecall::Begin(std::vector<RecallSlice> slices) {
  slices_ = std::move(slices);
  for (const RecallSlice& slice : slices_) {
    if (slice.recall != nullptr && !slice.recall->unsent.groups.empty()) ++slice.recall->unsent.steps;
  }
  const absl::Time now = absl::Now();
  silent_ = now < ask_again_;
  left_alone_ = now < rested_;
  step_deadline_ = now + (pause_ > absl::ZeroDuration() ? std::min(kProbe, sync_deadline_) : sync_deadline_);
}

void BatchRecall::FindUnits(int layer, absl::Span<const SliceQueries> queries) {
  const KvLayout& layout = backend_->layout();
  const int heads = layout.kv_heads, group = query_heads_ / heads;
  waiting_.count = passing_.count = 0;
  passing_of_.assign(slices_.size() * heads, -1);
  std::vector<const float*> of_group(group);
  for (size_t i = 0; i < slices_.size(); ++i) {
    const RecallSlice& slice = slices_[i];
    if (!Active(slice)) continue;
    const bool waits = Synchronous(slice);
    if (!waits && left_alone_) continue;
    for (int kv_head = 0; kv_head < heads; ++kv_head) {
      // The last token's queries choose: slices with recall have one token (Context::NextChunk).
      for (int g = 0; g < group; ++g) {
        of_group[g] = queries[i].Head(slice.tokens - 1, kv_head * group + g, layout.head_dim);
      }
      const bool due = slice.recall->Due(layer, kv_head, of_group);
      RowChoice come;
      if (!due && !waits && !slice.recall->TakeExpected(layer, kv_head, come)) continue;
      if (!waits) {
        // Beside the attention of other heads no page can be taken: what is ready would be installed after this head's
        // own, a step late.
        HeadRows& head = slice.rows->head(layer, kv_head);
        if (head.recalled_rows() < slice.recall->slots()) head.NeedFreeSlot(slice.rows->pool());
        passing_of_[i * heads + kv_head] = static_cast<int32_t>(passing_.count);
      }
      Unit& unit = waits ? waiting_.Add() : passing_.Add();
      unit.slice = static_cast<int>(i);
      unit.kv_head = kv_head;
      unit.waits = waits;
      unit.chooses = due || waits;
      unit.is_scored = false;
      if (!unit.chooses) unit.choice = std::move(come);
      unit.scanned = false;
      unit.queries = of_group;
    }
  }
}

void BatchRecall::BeforeAttention(int layer, absl::Span<const SliceQueries> queries) {
  const KvLayout& layout = backend_->layout();
  for (size_t i = 0; i < slices_.size(); ++i) {
    const RecallSlice& slice = slices_[i];
    if (slice.ring != nullptr) {
      for (int token = std::max(0, slice.tokens - slice.ring->window()); token < slice.tokens; ++token) {
        slice.ring->Push(layer, queries[i].Head(token, 0, layout.head_dim));
      }
    }
    if (Active(slice)) StageArrived(slices_[i]);
  }
  FindUnits(layer, queries);
  if (backend_->scans_indexes()) {
    Scan(layer, waiting_.now());
    Scan(layer, passing_.now());
  }
  if (waiting_.count > 0) Wait(layer);
}

void BatchRecall::Scan(int layer, absl::Span<Unit> units) {
  backend_->ParallelFor(static_cast<int64_t>(units.size()), [&](int64_t u) {
    Unit& unit = units[u];
    const RecallSlice& slice = slices_[unit.slice];
    unit.scanned = unit.chooses && slice.recall->PrepareScan(*slice.rows, *slice.log, layer, unit.kv_head, unit.queries,
                                                             slice.first_position, unit.scores, unit.scan);
  });
  scans_.clear();
  for (Unit& unit : units) {
    if (unit.scanned) scans_.push_back(&unit.scan);
  }
  if (scans_.empty()) return;
  backend_->ScanIndexes(scans_);
  for (Unit& unit : units) unit.scanned = unit.scanned && unit.scan.done;
}

void BatchRecall::Score(int layer, Unit& unit) {
  const RecallSlice& slice = slices_[unit.slice];
  if (unit.scanned) {
    slice.recall->TakeScan(unit.scan, unit.waits, unit.scores);
  } else {
    slice.recall->Score(*slice.rows, *slice.log, layer, unit.kv_head, unit.queries, slice.first_position, unit.waits,
                        unit.scores);
  }
  unit.is_scored = true;
  unit.chooses = unit.waits || slice.recall->WorthChoosing(unit.scores);
  if (unit.chooses) CompareNear(layer, unit);
}

void BatchRecall::Wait(int layer) {
  const absl::Span<Unit> units = waiting_.now();
  const auto count = static_cast<int64_t>(units.size());
  backend_->ParallelFor(count, [&](int64_t u) { Score(layer, units[u]); });
  CompareFar(layer, units);
  backend_->ParallelFor(count, [&](int64_t u) { Choose(layer, units[u]); });
  std::vector<MissingRows> missing;
  for (Unit& unit : units) Finish(layer, unit, &missing);
  if (!missing.empty()) {
    Fetch(missing, [&](const MissingRows& of, int32_t position, const char* bytes) {
      for (Unit& unit : units) {
        if (unit.slice == of.slice && unit.kv_head == of.kv_head) Install(layer, unit, position, bytes);
      }
    });
  }
  for (Unit& unit : units) MeasureDropped(unit);
}

void BatchRecall::BeforeHead(int layer, int slice, int kv_head) {
  const int32_t index = PassingUnit(slice, kv_head);
  if (index < 0) return;
  Unit& unit = passing_.all[index];
  RowRecall& recall = *slices_[slice].recall;
  const bool scores = unit.chooses;
  if (scores) Score(layer, unit);
  if (unit.chooses) {
    unit.scores.CompareByOthers(unit.far);
    Choose(layer, unit);
    return MeasureDropped(unit);
  }
  unit.groups.clear();
  unit.asked.clear();
  unit.missing.clear();
  unit.new_slot.clear();
  unit.missed = 0;
  if (scores) {
    unit.covered = unit.scores.held;
    MeasureDropped(unit);
    if (!recall.TakeExpected(layer, kv_head, unit.choice)) return;
  }
  InstallLocal(layer, unit);
  recall.KeepVictims(layer, kv_head, std::move(unit.choice.victims));
}

void BatchRecall::AfterAttention(int layer) {
  for (Unit& unit : passing_.now()) Finish(layer, unit, nullptr);
  for (Units* units : {&waiting_, &passing_}) {
    for (Unit& unit : units->now()) Count(layer, unit);
  }
  SendSome(layer);
}

void BatchRecall::AfterHead(int layer, int slice, int kv_head) {
  const RecallSlice& of = slices_[slice];
  if (of.compressor != nullptr) of.compressor->AfterHead(*backend_, *of.rows, layer, kv_head);
}

void BatchRecall::MeasureDropped(Unit& unit) const {
  unit.dropped = unit.scores.mass * std::clamp(1.0f - unit.covered, 0.0f, 1.0f);
}

void BatchRecall::Count(int layer, Unit& unit) {
  const RecallSlice& slice = slices_[unit.slice];
  const int64_t installed = std::exchange(unit.installed, 0);
  slice.recall->counters().recalled_rows += installed;
  RecallMeter::Group* meter = Meter(slice, layer);
  if (meter == nullptr) return;
  meter->recalled_rows += installed;
  if (slice.prompt || !unit.is_scored) return;
  meter->evicted_mass.Observe(unit.scores.mass);
  meter->dropped_mass.Observe(unit.dropped);
}

void BatchRecall::SendSome(int layer) {
  const int layers = backend_->layout().layers;
  if ((layer + 1) % ((layers + kSendsPerStep - 1) / kSendsPerStep) != 0) return;
  for (size_t i = 0; i < slices_.size(); ++i) Send(static_cast<int>(i));
}

void BatchRecall::CompareNear(int layer, Unit& unit) {
  unit.far.clear();
  RowScores& scores = unit.scores;
  if (scores.shortlist.empty()) return;
  RecallSlice& slice = slices_[unit.slice];
  RowStaging& staging = slice.recall->staging();
  const int index = HeadIndex(layer, unit.kv_head);
  const size_t row_bytes = backend_->layout().row_bytes();
  std::vector<int32_t>& places = unit.near_places;
  std::vector<const char*>& rows = unit.near_rows;
  // Without a branch: which rows have slots is hard to guess.
  places.resize(scores.shortlist.size());
  rows.resize(scores.shortlist.size());
  size_t others = 0;
  for (size_t i = 0; i < scores.shortlist.size(); ++i) {
    places[others] = scores.shortlist_place[i];
    others += static_cast<size_t>(scores.state[scores.shortlist[i]] != RecallState::kSlot);
  }
  for (size_t i = 0; i < others; ++i) staging.Prefetch(index, scores.PositionAt(places[i]));
  size_t near = 0;
  for (size_t i = 0; i < others; ++i) {
    const int32_t place = places[i];
    if (const char* row = staging.Find(index, scores.PositionAt(place)); row != nullptr) {
      for (size_t at = 0; at < row_bytes / 2; at += 64) __builtin_prefetch(row + at);
      places[near] = place;
      rows[near++] = row;
    } else {
      unit.far.push_back(place);
    }
  }
  places.resize(near);
  rows.resize(near);
  std::string copy;
  unit.own_scores.resize(scores.group * scores.slots.size());
  if (!backend_->KeyScores(*slice.rows, layer, unit.kv_head, unit.queries, scores.slot, unit.own_scores.data())) {
    copy.resize(scores.slot.size() * row_bytes);
    backend_->ReadRows(*slice.rows, layer, unit.kv_head, scores.slot, copy.data());  // together: a device is asked once
    std::vector<const char*> of_slots(scores.slot.size());
    for (size_t i = 0; i < of_slots.size(); ++i) of_slots[i] = copy.data() + i * row_bytes;
    slice.recall->OwnScores(unit.queries, of_slots, unit.own_scores.data());
  }
  scores.SetExactOfSlots(unit.own_scores);
  copy.resize(row_bytes);
  std::erase_if(unit.far, [&](int32_t place) {
    // A row is taken where it is found: acknowledged a moment later, it would be local no more.
    if (!slice.log->CopyLocalRow(scores.PositionAt(place), layer, unit.kv_head, copy.data())) return false;
    slice.recall->Compare(unit.queries, {place}, {copy.data()}, scores);
    return true;
  });
  slice.recall->Compare(unit.queries, places, rows, scores);
}

void BatchRecall::CompareFar(int layer, absl::Span<Unit> units) {
  std::vector<MissingRows> missing;
  for (Unit& unit : units) {
    unit.missing.clear();
    for (int32_t place : unit.far) unit.missing.push_back({unit.scores.PositionAt(place), /*wanted=*/false});
    AppendMissing({.slice = unit.slice, .layer = layer, .kv_head = unit.kv_head}, unit.missing, &missing);
  }
  if (missing.empty()) return;
  Fetch(missing, [&](const MissingRows& of, int32_t position, const char* bytes) {
    for (Unit& unit : units) {
      if (unit.slice != of.slice || unit.kv_head != of.kv_head) continue;
      slices_[of.slice].recall->Compare(unit.queries, {unit.scores.PlaceOf(position)}, {bytes}, unit.scores);
    }
  });
}

void BatchRecall::Choose(int layer, Unit& unit) {
  unit.choice = slices_[unit.slice].recall->Choose(layer, unit.kv_head, unit.scores, unit.waits);
  unit.covered = 0;
  if (unit.scores.any()) {
    for (const SlotRow& row : unit.scores.slots) unit.covered += unit.scores.weight[row.position];
  }
  InstallLocal(layer, unit);
  Ask(layer, unit);
}

void BatchRecall::InstallLocal(int layer, Unit& unit) {
  const RecallSlice& slice = slices_[unit.slice];
  const HeadRows& head = slice.rows->head(layer, unit.kv_head);
  unit.missing.clear();
  unit.new_slot.clear();
  unit.missed = 0;
  if (unit.choice.wanted.empty()) return;
  const size_t row_bytes = backend_->layout().row_bytes();
  for (int32_t position : unit.choice.wanted) {
    const char* row = slice.recall->staging().Find(HeadIndex(layer, unit.kv_head), position);
    for (size_t at = 0; row != nullptr && at < row_bytes; at += 64) __builtin_prefetch(row + at);
  }
  std::string copy(row_bytes, '\0');
  for (int32_t position : unit.choice.wanted) {
    const char* row = LocalRow(slice, layer, unit.kv_head, position, copy.data());
    if (row == nullptr) {
      unit.missing.push_back({position, /*wanted=*/true});
      if (unit.chooses) unit.missed += unit.scores.mass * unit.scores.weight[position];
    } else if (head.recalled_rows() >= slice.recall->slots() || head.has_free_slot() || head.Find(position) >= 0) {
      Install(layer, unit, position, row);
    } else {
      unit.new_slot.push_back(position);  // it needs a page, and the pool is everybody's
    }
  }
}

void BatchRecall::Ask(int layer, Unit& unit) {
  const RecallSlice& slice = slices_[unit.slice];
  RowRecall& recall = *slice.recall;
  const int index = HeadIndex(layer, unit.kv_head);
  unit.asked.clear();
  if (!unit.waits) {
    if (!unit.missing.empty()) recall.Expect(layer, unit.kv_head, unit.missing, unit.choice.victims);
    for (const MissingPosition& row : unit.missing) {
      if (recall.staging().Ask(index, row.position)) unit.asked.push_back(row);
    }
  }
  auto is_waited_for = [&](int32_t position) {
    return unit.waits && std::any_of(unit.missing.begin(), unit.missing.end(),
                                     [&](const MissingPosition& row) { return row.position == position; });
  };
  int32_t block = -1;
  bool stored = false;
  for (int32_t position : unit.choice.ahead) {
    if (position / kBlockTokens != block) {
      block = position / kBlockTokens;
      stored = slice.log->IsStored(block, layer);  // else it is in host memory
    }
    if (stored && !is_waited_for(position) && recall.staging().Ask(index, position)) {
      unit.asked.push_back({position, /*wanted=*/false});
    }
  }
  unit.groups.clear();
  AppendMissing({.slice = unit.slice, .layer = layer, .kv_head = unit.kv_head}, unit.asked, &unit.groups);
}

void BatchRecall::Finish(int layer, Unit& unit, std::vector<MissingRows>* missing) {
  const RecallSlice& slice = slices_[unit.slice];
  std::vector<MissingPosition> gone;
  std::string copy(unit.new_slot.empty() ? 0 : backend_->layout().row_bytes(), '\0');
  for (int32_t position : unit.new_slot) {
    if (const char* row = LocalRow(slice, layer, unit.kv_head, position, copy.data()); row != nullptr) {
      Install(layer, unit, position, row);
    } else {
      gone.push_back({position, /*wanted=*/true});
    }
  }
  const MissingRows head = {.slice = unit.slice, .layer = layer, .kv_head = unit.kv_head};
  RowRecall::Unsent& unsent = slice.recall->unsent;
  unsent.groups.insert(unsent.groups.end(), unit.groups.begin(), unit.groups.end());
  unsent.rows += static_cast<int64_t>(unit.asked.size());
  unsent.urgent = unsent.urgent || unit.missed >= kUrgentShare;
  if (unit.waits) {
    unit.missing.insert(unit.missing.end(), gone.begin(), gone.end());
    return AppendMissing(head, unit.missing, missing);
  }
  if (gone.empty()) return;
  slice.recall->Expect(layer, unit.kv_head, gone, unit.choice.victims);
  std::erase_if(gone, [&](const MissingPosition& row) {
    return !slice.recall->staging().Ask(HeadIndex(layer, unit.kv_head), row.position);
  });
  unsent.rows += static_cast<int64_t>(gone.size());
  AppendMissing(head, gone, &unsent.groups);
}

const char* BatchRecall::LocalRow(const RecallSlice& slice, int layer, int kv_head, int32_t position, char* row) const {
  if (const char* staged = slice.recall->staging().Find(HeadIndex(layer, kv_head), position); staged != nullptr) {
    return staged;
  }
  return slice.log->CopyLocalRow(position, layer, kv_head, row) ? row : nullptr;
}

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

void BatchRecall::Install(int layer, Unit& unit, int32_t position, const char* row) {
  RecallSlice& slice = slices_[unit.slice];
  HeadRows& head = slice.rows->head(layer, unit.kv_head);
  std::vector<int32_t>& victims = unit.choice.victims;
  int32_t slot = head.Find(position);
  if (slot >= 0) {
    if (head.merged()[slot] == 0) return;
    head.merged()[slot] = 0;  // a mixture becomes its own row again; what was merged into it is recalled by itself
  } else if (head.recalled_rows() < slice.recall->slots()) {
    slot = head.Add(slice.rows->pool(), position, RowKind::kRecalled);
  } else {
    int32_t victim = -1;
    while (!victims.empty() && slot < 0) {
      victim = victims.front();
      slot = head.Find(victim);
      victims.erase(victims.begin());
      if (slot >= 0 && head.kind(slot) != RowKind::kRecalled) slot = -1;
    }
    if (slot < 0) return;
    head.Replace(slot, position);
    if (unit.chooses) unit.covered -= unit.scores.weight[victim];
  }
  backend_->WriteRow(*slice.rows, layer, unit.kv_head, slot, row);
  if (unit.chooses) unit.covered += unit.scores.weight[position];
  ++unit.installed;
}

void BatchRecall::End() {
  for (size_t i = 0; i < slices_.size(); ++i) Send(static_cast<int>(i));
}

void BatchRecall::Send(int slice) {
  if (slices_[slice].recall == nullptr || left_alone_) return;
  RowRecall& recall = *slices_[slice].recall;
  RowRecall::Unsent& unsent = recall.unsent;
  if (unsent.groups.empty()) return;
  if (!unsent.urgent && unsent.rows < kManyRows && unsent.steps + 1 < kPatientSteps) return;
  auto inflight = std::make_shared<RowRecall::Inflight>();
  inflight->deadline = absl::Now() + absl::Milliseconds(recall.spec().budget_ms);
  inflight->groups = std::exchange(unsent, {}).groups;
  MergeMissing(inflight->groups);
  for (MissingRows& rows : inflight->groups) rows.slice = slice;
  cache_->Recall(SelectionsOf(inflight->groups), inflight->deadline,
                 [mailbox = inflight->mailbox](absl::StatusOr<RecalledRows> rows) { mailbox->Put(std::move(rows)); });
  recall.inflight.push_back(std::move(inflight));
}

void BatchRecall::StageArrived(RecallSlice& slice) {
  std::erase_if(slice.recall->inflight, [&](const std::shared_ptr<RowRecall::Inflight>& inflight) {
    const std::optional<absl::StatusOr<RecalledRows>> came = inflight->mailbox->TryTake();
    if (!came.has_value() && absl::Now() <= inflight->deadline) return false;
    CountAnswer(came, *inflight->mailbox, requests_.async);
    NoteAnswer(came.has_value() && came->ok());
    Stage(slice, MissingAnswer(came.has_value() ? &*came : nullptr, inflight->groups, backend_->layout().row_bytes()),
          inflight->groups);
    return true;
  });
}

void BatchRecall::NoteAnswer(bool answered) {
  if (answered) {
    unanswered_ = 0;
    rest_ = absl::ZeroDuration();
    rested_ = absl::InfinitePast();
    return;
  }
  if (++unanswered_ < kMostUnanswered || left_alone_) return;
  unanswered_ = kMostUnanswered - 1;  // one more is enough
  rest_ = std::clamp(2 * rest_, kShortestRest, kLongestRest);
  rested_ = absl::Now() + rest_;
  left_alone_ = true;
  TP_LOG(Warning, "recall", "asynchronous requests go unanswered; the cache service is asked again in ",
         absl::FormatDuration(rest_));
}

void BatchRecall::Stage(RecallSlice& slice, const MissingAnswer& answer, absl::Span<const MissingRows> groups) {
  // Heads side by side: the rows of one lie together.
  std::vector<size_t> first;
  for (size_t g = 0; g < groups.size(); ++g) {
    if (g == 0 || groups[g].layer != groups[g - 1].layer || groups[g].kv_head != groups[g - 1].kv_head) {
      first.push_back(g);
    }
  }
  struct Missed {
    size_t group;
    int32_t position;
    absl::Status why;
  };
  struct Came {
    int64_t rows = 0;
    std::vector<Missed> missed;
  };
  std::vector<Came> came(first.size());
  RowStaging& staging = slice.recall->staging();
  backend_->ParallelFor(static_cast<int64_t>(first.size()), [&](int64_t i) {
    const size_t end = i + 1 < static_cast<int64_t>(first.size()) ? first[i + 1] : groups.size();
    for (size_t g = first[i]; g < end; ++g) {
      const int head = HeadIndex(groups[g].layer, groups[g].kv_head);
      answer.ForEachRow(g, [&](int32_t position, const char* bytes, const absl::Status& why) {
        if (bytes == nullptr) {
          staging.Forget(head, position);
          came[i].missed.push_back({g, position, why});
        } else {
          staging.Put(head, position, bytes);
          ++came[i].rows;
        }
      });
    }
  });
  for (const Came& of_head : came) {
    slice.recall->counters().recalled_bytes += of_head.rows * static_cast<int64_t>(backend_->layout().row_bytes());
    for (const Missed& row : of_head.missed) Miss(slice, groups[row.group], row.position, row.why, /*waited=*/false);
  }
}

}  // namespace tidepool
