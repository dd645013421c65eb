#include "worker/kv/batch_recall.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "absl/time/clock.h"
#include "worker/kv/compressor.h"

namespace tidepool {
namespace {

// What more of a head's attention is on is asked for in the step that misses it, though few rows have come together.
constexpr float kUrgentShare = 0.05f;

// In a step this part of all heads may choose, or a few where there are few, besides those that miss kUrgentShare:
// eleven of ninety do on average, but in some steps forty, which then took twice as long. Not when an answer begins:
// what a question wants is to be there at once. In a step that is long anyway no others do.
constexpr int kHeadsForTurn = 6, kLeastTurns = 8;

// How long a service is waited for that has let a deadline pass.
constexpr absl::Duration kProbe = absl::Seconds(1);

}  // namespace

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
  joint_.resize(slices_.size());
  for (JointShares& shares : joint_) shares.Clear();
  if (turns_.size() < slices_.size()) turns_ = std::vector<std::atomic<int>>(slices_.size());
  for (size_t i = 0; i < slices_.size(); ++i) {
    RowRecall* const recall = slices_[i].recall;
    if (recall == nullptr) continue;
    if (!recall->unsent.groups.empty()) ++recall->unsent.steps;
    recall->BeginStep(slices_[i].prompt, slices_[i].selects);
    turns_[i].store(recall->owed_heads(), std::memory_order_relaxed);
  }
  const absl::Time now = absl::Now();
  silent_ = now < ask_again_;
  left_alone_ = now < rested_;
  unanswered_now_ = false;
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
    const Chooser chooser = slice.recall->ChooserOf(layer);
    // The last token's queries choose: slices with recall have one token (Context::NextChunk).
    auto find_queries = [&](int kv_head) {
      for (int g = 0; g < group; ++g) {
        of_group[g] = queries[i].Head(slice.tokens - 1, kv_head * group + g, layout.head_dim);
      }
    };
    bool all_due = chooser == Chooser::kLayerBelow && !joint_[i].Mean().empty();
    if (chooser == Chooser::kHeadsTogether) {
      joint_[i].Clear();
      for (int kv_head = 0; kv_head < heads; ++kv_head) {
        find_queries(kv_head);
        all_due |= slice.recall->Due(layer, kv_head, of_group);
      }
    }
    // A head finds out by itself whether it is due, beside the attention of others.
    const bool undecided = !waits && chooser == Chooser::kHead && !backend_->waits_for_hooks();
    for (int kv_head = 0; kv_head < heads; ++kv_head) {
      find_queries(kv_head);
      const bool due = undecided || (chooser == Chooser::kHead ? slice.recall->Due(layer, kv_head, of_group) : all_due);
      auto has_rows = [&](const auto& arrived) { return arrived->Find(layer, kv_head) != nullptr; };
      if (!due && !waits && !slice.recall->Expects(layer, kv_head) &&
          std::none_of(slice.recall->arrived.begin(), slice.recall->arrived.end(), has_rows)) {
        continue;
      }
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
      unit.idle = false;
      unit.chooser = chooser;
      unit.undecided = undecided;
      unit.chooses = due || waits;
      unit.owed = !undecided && due && slice.recall->TakeOwed(layer, kv_head);
      unit.is_scored = false;
      unit.scanned = false;
      unit.mass = 0;
      unit.queries = of_group;
      unit.local.Begin(*slice.log, layer, kv_head);
    }
  }
  for (Units* units : {&waiting_, &passing_}) {
    for (Unit& unit : units->now()) unit.scores = &unit.kept_scores;  // now that units stay where they are
  }
}

void BatchRecall::BeforeAttention(int layer, absl::Span<const SliceQueries> queries) {
  const KvLayout& layout = backend_->layout();
  queries_ = queries;
  remembered_.assign(slices_.size(), nullptr);
  for (size_t i = 0; i < slices_.size(); ++i) {
    const RecallSlice& slice = slices_[i];
    if (slice.ring != nullptr && slice.tokens == 1 && !backend_->waits_for_hooks()) {
      remembered_[i] = slice.ring->Extend(layer);  // each head fills its part, before it attends
    } else if (slice.ring != nullptr) {
      for (int token = std::max(0, slice.tokens - slice.ring->window()); token < slice.tokens; ++token) {
        slice.ring->Push(layer, queries[i].Head(token, 0, layout.head_dim));
      }
    }
    if (Active(slice)) TakeAnswers(slices_[i]);
  }
  FindUnits(layer, queries);
  if (backend_->scans_indexes()) {
    Scan(layer, waiting_.now());
    Scan(layer, passing_.now());
  }
  if (waiting_.count > 0) Wait(layer);
  // Those that choose together are scored before the first of them chooses; the others each before its attention.
  const absl::Span<Unit> passing = passing_.now();
  auto together = [](const Unit& unit) { return unit.chooses && unit.chooser == Chooser::kHeadsTogether; };
  if (std::none_of(passing.begin(), passing.end(), together)) return;
  backend_->ParallelFor(static_cast<int64_t>(passing.size()), [&](int64_t u) {
    if (together(passing[u])) ScorePassing(layer, passing[u]);
  });
  WeighTogether(layer, passing);
}

void BatchRecall::WeighTogether(int layer, absl::Span<Unit> units) {
  auto takes_part = [](const Unit& unit) {
    return unit.chooser == Chooser::kHeadsTogether && unit.chooses && unit.scores->any();
  };
  for (Unit& unit : units) {
    if (!takes_part(unit)) continue;
    slices_[unit.slice].recall->Weigh(layer, unit.kv_head, *unit.scores);
    joint_[unit.slice].Add(*unit.scores);
  }
  for (Unit& unit : units) {
    if (!takes_part(unit)) continue;
    slices_[unit.slice].recall->ChooseBy(joint_[unit.slice].Mean(), layer, unit.kv_head, *unit.scores);
  }
}

void BatchRecall::Scan(int layer, absl::Span<Unit> units) {
  backend_->ParallelFor(static_cast<int64_t>(units.size()), [&](int64_t u) {
    Unit& unit = units[u];
    const RecallSlice& slice = slices_[unit.slice];
    unit.scanned = unit.chooses && unit.chooser != Chooser::kLayerBelow &&
                   slice.recall->PrepareScan(*slice.rows, *slice.log, layer, unit.kv_head, unit.queries,
                                             slice.first_position, *unit.scores, unit.scan);
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
  if (unit.chooser == Chooser::kLayerBelow) {
    slice.recall->Follow(*slice.rows, *slice.log, layer, unit.kv_head, joint_[unit.slice].Mean(), *unit.scores);
    unit.chooses = unit.waits || unit.scores->any();
    unit.far.clear();  // nothing is compared
    return;
  }
  if (unit.scanned) {
    slice.recall->TakeScan(unit.scan, unit.waits, *unit.scores);
  } else {
    slice.recall->Score(*slice.rows, *slice.log, layer, unit.kv_head, unit.queries, slice.first_position, unit.waits,
                        *unit.scores);
  }
  unit.is_scored = true;
  unit.chooses = unit.waits || (slice.recall->WorthChoosing(*unit.scores) && TakeTurn(layer, unit));
  if (unit.chooses) CompareNear(layer, unit);
}

bool BatchRecall::TakeTurn(int layer, const Unit& unit) {
  RowRecall& recall = *slices_[unit.slice].recall;
  if (unit.chooser != Chooser::kHead || !recall.MeasuresWorth() || recall.begins_answer()) return true;
  if (unit.owed || unit.scores->worth >= kUrgentShare) return true;
  const KvLayout& layout = backend_->layout();
  const int most = std::max(layout.layers * layout.kv_heads / kHeadsForTurn, kLeastTurns);
  if (!recall.rests() && turns_[unit.slice].fetch_add(1, std::memory_order_relaxed) < most) return true;
  recall.Owe(layer, unit.kv_head);
  return false;
}

void BatchRecall::StageOwn(int layer, Unit& unit) const {
  RowRecall& recall = *slices_[unit.slice].recall;
  for (const auto& arrived : recall.arrived) {
    ArrivedRows::OfHead* const own = arrived->Find(layer, unit.kv_head);
    if (own != nullptr) Stage(recall.staging(), *arrived, *own, unit.staged);
  }
}

void BatchRecall::ScorePassing(int layer, Unit& unit) {
  StageOwn(layer, unit);
  Score(layer, unit);
  if (unit.chooses) unit.scores->CompareByOthers(unit.far);
}

void BatchRecall::Wait(int layer) {
  const absl::Span<Unit> units = waiting_.now();
  const auto count = static_cast<int64_t>(units.size());
  backend_->ParallelFor(count, [&](int64_t u) { Score(layer, units[u]); });
  CompareFar(layer, units);
  WeighTogether(layer, units);
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
  SendOne();
  if (remembered_[slice] != nullptr) {
    const int head_dim = backend_->layout().head_dim, group = query_heads_ / backend_->layout().kv_heads;
    std::memcpy(remembered_[slice] + static_cast<size_t>(kv_head) * group * head_dim,
                queries_[slice].Head(0, kv_head * group, head_dim), sizeof(float) * group * head_dim);
  }
  const int32_t index = PassingUnit(slice, kv_head);
  if (index < 0) return;
  Unit& unit = passing_.all[index];
  RowRecall& recall = *slices_[slice].recall;
  if (unit.undecided) {
    unit.chooses = recall.Due(layer, kv_head, unit.queries);
    unit.owed = unit.chooses && recall.TakeOwed(layer, kv_head);
  }
  if (!unit.chooses) StageOwn(layer, unit);
  const bool scores = unit.chooses || unit.is_scored;
  // Its arrays are gone through again and again. They stay in the thread's cache; those of all heads of a batch do not.
  thread_local RowScores scores_of_thread;
  if (scores && !unit.is_scored) {
    if (!unit.scanned) unit.scores = &scores_of_thread;
    ScorePassing(layer, unit);
  }
  if (unit.chooses) {
    Choose(layer, unit);
    MeasureDropped(unit);
    unit.scores = nullptr;
    return;
  }
  unit.groups.clear();
  unit.asked.clear();
  unit.missing.clear();
  unit.new_slot.clear();
  unit.missed = 0;
  if (scores) {
    unit.covered = unit.scores->held;
    MeasureDropped(unit);
    unit.scores = nullptr;
  }
  if (!recall.TakeExpected(layer, kv_head, unit.choice)) {
    unit.idle = !scores && unit.staged.rows == 0 && unit.staged.missed.empty();
    return;
  }
  InstallLocal(layer, unit);
  recall.KeepVictims(layer, kv_head, std::move(unit.choice.victims));
}

void BatchRecall::AfterAttention(int layer) {
  for (Unit& unit : waiting_.now()) Count(layer, unit);
  for (Unit& unit : passing_.now()) {
    if (unit.idle) continue;
    Finish(layer, unit, nullptr);
    Count(layer, unit);
  }
  // Requests are sent beside the attention of the last layer.
  if (layer == backend_->layout().layers - 2) FindRequests();
}

StepHook::Comparison* BatchRecall::Compares(int layer, int slice, int kv_head) {
  const RecallSlice& of = slices_[slice];
  return of.compressor != nullptr ? of.compressor->Compares(*of.rows, layer, kv_head) : nullptr;
}

void BatchRecall::AfterHead(int layer, int slice, int kv_head) {
  const RecallSlice& of = slices_[slice];
  if (of.compressor != nullptr) of.compressor->AfterHead(*backend_, *of.rows, layer, kv_head);
}

void BatchRecall::MeasureDropped(Unit& unit) const {
  unit.mass = unit.scores->mass;
  unit.dropped = unit.mass * std::clamp(1.0f - unit.covered, 0.0f, 1.0f);
}

void BatchRecall::Count(int layer, Unit& unit) {
  RecallSlice& slice = slices_[unit.slice];
  CountStaged(slice, unit.staged);
  const int64_t installed = std::exchange(unit.installed, 0);
  slice.recall->counters().recalled_rows += installed;
  RecallMeter::Group* meter = Meter(slice, layer);
  if (meter == nullptr) return;
  meter->recalled_rows += installed;
  if (slice.prompt || !unit.is_scored) return;
  meter->evicted_mass.Observe(unit.mass);
  meter->dropped_mass.Observe(unit.dropped);
}

void BatchRecall::CompareNear(int layer, Unit& unit) {
  unit.far.clear();
  RowScores& scores = *unit.scores;
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
    if (const char* row = LocalRow(unit, index, scores.PositionAt(place)); row != nullptr) {
      for (size_t at = 0; at < row_bytes / 2; at += 64) __builtin_prefetch(row + at);
      places[near] = place;
      rows[near++] = row;
    } else {
      unit.far.push_back(place);
    }
  }
  places.resize(near);
  rows.resize(near);
  unit.own_scores.resize(scores.group * scores.slots.size());
  if (!backend_->KeyScores(*slice.rows, layer, unit.kv_head, unit.queries, scores.slot, unit.own_scores.data())) {
    std::string copy(scores.slot.size() * row_bytes, '\0');
    backend_->ReadRows(*slice.rows, layer, unit.kv_head, scores.slot, copy.data());  // together: a device is asked once
    std::vector<const char*> of_slots(scores.slot.size());
    for (size_t i = 0; i < of_slots.size(); ++i) of_slots[i] = copy.data() + i * row_bytes;
    slice.recall->OwnScores(unit.queries, of_slots, unit.own_scores.data());
  }
  scores.SetExactOfSlots(unit.own_scores);
  slice.recall->Compare(unit.queries, places, rows, scores);
}

void BatchRecall::CompareFar(int layer, absl::Span<Unit> units) {
  std::vector<MissingRows> missing;
  for (Unit& unit : units) {
    unit.missing.clear();
    for (int32_t place : unit.far) unit.missing.push_back({unit.scores->PositionAt(place), /*wanted=*/false});
    AppendMissing({.slice = unit.slice, .layer = layer, .kv_head = unit.kv_head}, unit.missing, &missing);
  }
  if (missing.empty()) return;
  Fetch(missing, [&](const MissingRows& of, int32_t position, const char* bytes) {
    for (Unit& unit : units) {
      if (unit.slice != of.slice || unit.kv_head != of.kv_head) continue;
      slices_[of.slice].recall->Compare(unit.queries, {unit.scores->PlaceOf(position)}, {bytes}, *unit.scores);
    }
  });
}

void BatchRecall::Choose(int layer, Unit& unit) {
  unit.choice = slices_[unit.slice].recall->Choose(layer, unit.kv_head, *unit.scores, unit.waits);
  unit.covered = 0;
  if (unit.scores->any()) {
    for (const SlotRow& row : unit.scores->slots) unit.covered += unit.scores->weight[row.position];
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
  const int index = HeadIndex(layer, unit.kv_head);
  for (int32_t position : unit.choice.wanted) {
    const char* row = LocalRow(unit, index, position);
    for (size_t at = 0; row != nullptr && at < row_bytes; at += 64) __builtin_prefetch(row + at);
  }
  for (int32_t position : unit.choice.wanted) {
    const char* row = LocalRow(unit, index, position);
    if (row == nullptr) {
      unit.missing.push_back({position, /*wanted=*/true});
      if (unit.chooses) unit.missed += unit.scores->mass * unit.scores->weight[position];
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
      if (recall.staging().Note(index, row.position, /*wanted=*/true)) unit.asked.push_back(row);
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
    if (stored && !is_waited_for(position) && recall.staging().Note(index, position, /*wanted=*/false)) {
      unit.asked.push_back({position, /*wanted=*/false});
    }
  }
  unit.groups.clear();
  AppendMissing({.slice = unit.slice, .layer = layer, .kv_head = unit.kv_head}, unit.asked, &unit.groups);
}

void BatchRecall::Finish(int layer, Unit& unit, std::vector<MissingRows>* missing) {
  const RecallSlice& slice = slices_[unit.slice];
  std::vector<MissingPosition> gone;
  for (int32_t position : unit.new_slot) {
    if (const char* row = LocalRow(unit, HeadIndex(layer, unit.kv_head), position); row != nullptr) {
      Install(layer, unit, position, row);
    } else {
      gone.push_back({position, /*wanted=*/true});
    }
  }
  unit.local.Clear();
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
    return !slice.recall->staging().Note(HeadIndex(layer, unit.kv_head), row.position, /*wanted=*/true);
  });
  unsent.rows += static_cast<int64_t>(gone.size());
  AppendMissing(head, gone, &unsent.groups);
}

const char* BatchRecall::LocalRow(Unit& unit, int head, int32_t position) const {
  const char* staged = slices_[unit.slice].recall->staging().Find(head, position);
  return staged != nullptr ? staged : unit.local.Find(position);
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
    if (unit.chooses && unit.scores != nullptr) unit.covered -= unit.scores->weight[victim];
  }
  backend_->WriteRow(*slice.rows, layer, unit.kv_head, slot, row);
  if (unit.chooses && unit.scores != nullptr) unit.covered += unit.scores->weight[position];
  ++unit.installed;
}

void BatchRecall::End() {
  auto send = [this] {
    while (next_to_send_ < to_send_.size()) SendOne();
  };
  send();
  FindRequests();  // of a model of one layer, and what the last layer has added
  send();
  to_send_.clear();
}

}  // namespace tidepool
