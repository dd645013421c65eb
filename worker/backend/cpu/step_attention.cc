#include "worker/backend/cpu/step_attention.h"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include "worker/kernels/cpu/leaving_row.h"

namespace tidepool {
namespace {

constexpr int32_t kScorePages = 8;  // of a unit

}  // namespace

StepAttention::StepAttention(const KvLayout& layout, int heads, const PageMemory& memory,
                             const std::vector<PackedPage>& layouts, ThreadTeam& team)
    : layout_(layout),
      heads_(heads),
      group_(heads / layout.kv_heads),
      scale_(1.0f / std::sqrt(static_cast<float>(layout.head_dim))),
      memory_(memory),
      layouts_(layouts),
      team_(team),
      after_head_([this](int64_t head) {
        const auto of_layer = static_cast<int64_t>(slices_.size()) * layout_.kv_heads;
        hook_->AfterHead(static_cast<int>(head / of_layer), static_cast<int>(head % of_layer / layout_.kv_heads),
                         static_cast<int>(head % layout_.kv_heads));
      }) {
  for (int i = 0; i < team.size(); ++i) threads_.push_back(std::make_unique<Thread>(memory));
}

int StepAttention::TileTokens(int count) const {
  // Tiles alike, each a multiple of what the kernels take together.
  constexpr int kMostTokens = 32, kTogether = 4;
  const int most = std::clamp(kTileQueries / group_, 1, kMostTokens);
  const int tiles = (count + most - 1) / most;
  return std::min(most, ((count + tiles - 1) / tiles + kTogether - 1) / kTogether * kTogether);
}

void StepAttention::Begin(absl::Span<const StepSlice> slices, StepHook* hook) {
  slices_ = slices;
  hook_ = hook;
}

void StepAttention::FindHeads(int layer) {
  now_.clear();
  prepare_.clear();
  whole_.clear();
  next_prepare_ = 0;
  int to_attend = 0;
  int64_t first_row = 0;
  for (size_t i = 0; i < slices_.size(); ++i) {
    const auto count = static_cast<int64_t>(slices_[i].tokens.size());
    for (int kv_head = 0; kv_head < layout_.kv_heads; ++kv_head) {
      if (now_.size() == all_.size()) all_.push_back(std::make_unique<Head>());
      Head& head = *all_[now_.size()];
      head.slice = &slices_[i];
      head.rows = &slices_[i].rows->head(layer, kv_head);
      head.slice_index = static_cast<int>(i);
      head.kv_head = kv_head;
      head.first_row = first_row;
      const bool decodes = slices_[i].decodes;
      head.sums_columns = decodes ? head.rows->adds_steps_to_column_sums() : head.rows->keeps_column_sums();
      head.sums_steps = decodes && head.rows->keeps_step_sums();
      head.busy = hook_ != nullptr && hook_->Busy(head.slice_index, kv_head);
      head.by_slot = hook_ != nullptr && count == 1 && hook_->MayAttendBySlot(head.slice_index);
      head.split = count * group_ <= kMostQueries;
      to_attend += count == 1;
      head.prepared.store(false, std::memory_order_relaxed);
      head.score_units = head.units = 0;
      head.next_score.store(0, std::memory_order_relaxed);
      head.next_unit.store(0, std::memory_order_relaxed);
      head.done.store(0, std::memory_order_relaxed);
      head.taken.store(false, std::memory_order_relaxed);
      head.merged.store(false, std::memory_order_relaxed);
      head.given.store(0, std::memory_order_relaxed);
      now_.push_back(&head);
    }
    first_row += count;
  }
  to_attend_.store(to_attend, std::memory_order_relaxed);
  // Prompts' tiles are long: they are not left for the end.
  std::sort(now_.begin(), now_.end(), [](const Head* a, const Head* b) {
    return std::tie(a->busy, a->split, a->slice_index, a->kv_head) <
           std::tie(b->busy, b->split, b->slice_index, b->kv_head);
  });
  // As many for each thread; what is left makes up for heads that take longer than others.
  const size_t threads = team_.size(), least = threads > 1 ? (threads + 1) / 2 : 0;
  const size_t whole = now_.size() > least ? (now_.size() - least) / threads * threads : 0;
  int64_t scratch = 0;
  kept_floats_ = 0;
  for (size_t i = 0; i < now_.size(); ++i) {
    Head& head = *now_[i];
    head.whole = head.split && i < whole;
    head.scratch = scratch;
    if (!head.split || head.whole) continue;
    const int64_t queries = static_cast<int64_t>(head.slice->tokens.size()) * group_;
    const int64_t slots = static_cast<int64_t>(head.rows->pages().size()) * kPageSlots;  // a hook takes no pages
    const int64_t parts = PartsOf(static_cast<int32_t>(slots));
    scratch += (queries + 1) * slots + queries * (parts + 1) * PartialFloats(layout_.head_dim);
    if (head.sums_columns || head.sums_steps) kept_floats_ += queries * parts * kPartRows;
  }
  scratch_.Floats(scratch);
  attends_at_once_ = std::all_of(now_.begin(), now_.end(), [](const Head* head) { return head->split; });
  // What threads share is waited for, and hooks take longest.
  for (const bool busy : {true, false}) {
    for (Head* head : now_) {
      if (head->busy == busy) (head->whole ? whole_ : prepare_).push_back(head);
    }
  }
  if (!attends_at_once_) prepare_.insert(prepare_.end(), whole_.begin(), whole_.end());
}

void StepAttention::PrepareComparison(Head& head, int layer) {
  head.compared = nullptr;
  if (hook_ == nullptr || head.slice->tokens.size() != 1 || head.by_slot || !head.rows->groups().empty()) return;
  head.compared = hook_->Compares(layer, head.slice_index, head.kv_head);
  if (head.compared == nullptr) return;
  const int32_t slot = head.compared->slot;
  memory_.ReadFloats(head.rows->pages()[slot / kPageSlots].page, slot % kPageSlots, head.row);
  head.comparison = {.key = head.row,
                     .length = LengthOf(head.row, layout_.head_dim),
                     .row = head.rows->RowAt(head.rows->position(slot)),
                     .positions = head.rows->positions().data(),
                     .free = head.rows->free_slots().data(),
                     .free_slots = static_cast<int32_t>(head.rows->free_slots().size())};
  head.task.comparison = &head.comparison;
}

void StepAttention::Prepare(Head& head, int layer, const float* q, float* out) {
  head.pages.Find(memory_, layouts_, *head.rows, head.by_slot);
  const int count = static_cast<int>(head.slice->tokens.size());
  if (!head.split) {
    const int tile = TileTokens(count);
    head.units = head.sums_columns ? group_ : (count + tile - 1) / tile;
    return;
  }
  AttentionTask& task = head.task;
  task = AttentionTask();
  head.pages.SetIn(*head.rows, task);
  task.head_dim = layout_.head_dim;
  task.scale = scale_;
  task.queries = 0;
  for (int i = 0; i < count; ++i) {
    for (int g = 0; g < group_; ++g) {
      const int64_t at = ((head.first_row + i) * heads_ + int64_t{head.kv_head} * group_ + g) * layout_.head_dim;
      head.query[task.queries] = q + at;
      head.out[task.queries] = out + at;
      if (head.sums_columns) head.column_sums[task.queries] = head.rows->column_sums()[g].data();
      head.visible[task.queries++] = task.rows - count + i + 1;
    }
  }
  task.q = head.query;
  task.visible = head.visible;
  task.out = head.out;
  if (head.sums_columns) task.column_sums = head.column_sums;
  if (head.sums_steps) {
    task.sums = head.rows->step_sums().data();
    head.rows->CountSummedStep();
  }
  PrepareComparison(head, layer);
  head.units = PartsOf(task.rows);
  head.local = task.order != nullptr;
  for (int32_t part = 0; part < head.units && head.local; ++part) head.local = IsLocal(task, part);
  if (task.order != nullptr && !head.local) {
    const auto pages = static_cast<int32_t>(SlotFloats(task.slots) / kPageSlots);
    head.score_units = (pages + kScorePages - 1) / kScorePages;
    if (head.score_units > head.scored_size) {
      head.scored_size = 2 * head.score_units;
      head.scored = std::make_unique<std::atomic<bool>[]>(head.scored_size);
    }
    for (int32_t unit = 0; unit < head.score_units; ++unit) head.scored[unit].store(false, std::memory_order_relaxed);
  }
}

void StepAttention::Score(Head& head, int32_t unit, int thread) {
  const auto pages = static_cast<int32_t>(SlotFloats(head.task.slots) / kPageSlots);
  const int32_t first = unit * kScorePages;
  ScorePages(layout_.type, head.task, first, std::min(pages, first + kScorePages), scratch_.Floats(0) + head.scratch,
             threads_[thread]->scratch.Floats(PartScratchFloats(kMostQueries, layout_.head_dim)));
}

void StepAttention::ScoreFor(Head& head, int32_t part, int thread) {
  const int32_t needed = (PagesNeeded(head.task, part) + kScorePages - 1) / kScorePages;
  while (head.next_score.load(std::memory_order_relaxed) < needed) {
    const int32_t unit = head.next_score.fetch_add(1);
    if (unit >= head.score_units) break;
    Score(head, unit, thread);
    head.scored[unit].store(true, std::memory_order_release);
  }
  for (int32_t unit = 0; unit < needed; ++unit) {
    ThreadTeam::WaitUntil([&] { return head.scored[unit].load(std::memory_order_acquire); });
  }
}

void StepAttention::Part(Head& head, int layer, int32_t unit, int thread) {
  Thread& own = *threads_[thread];
  float* partials = scratch_.Floats(0) + PartialsAt(head);
  const int64_t part_floats = PartFloats(head);
  // Threads take parts, and pages to score, in turn.
  const AttentionTask& task = head.task;
  const int32_t later = (unit + team_.size()) * kPartRows;
  int32_t next = later / kPageSlots;
  if (head.local) next = later < task.rows ? task.order[later] / kPageSlots : task.slots / kPageSlots;
  if (head.score_units > 0) next = head.next_score.load(std::memory_order_relaxed) * kScorePages;
  float* scores = head.score_units > 0 ? scratch_.Floats(0) + head.scratch : nullptr;
  float* weights = nullptr;
  if (task.keeps_weights()) {
    weights = own.weights.Floats(kept_floats_) + own.used;
    own.used += int64_t{task.queries} * kPartRows;
    own.kept.push_back({&head, unit, weights});
  }
  AttendPart(layout_.type, task, unit, next, scores, weights, partials + unit * part_floats,
             own.scratch.Floats(PartScratchFloats(kMostQueries, layout_.head_dim)));
  if (head.done.fetch_add(1, std::memory_order_acq_rel) + 1 != head.units) return;
  MergeParts(head.task, partials, scores, partials + head.units * part_floats);
  if (weights == nullptr) return Attended(head, layer);
  head.merged.store(true, std::memory_order_release);
}

void StepAttention::GiveParts(int layer, int thread, bool wait) {
  Thread& own = *threads_[thread];
  for (; own.given < own.kept.size(); ++own.given) {
    const Kept& part = own.kept[own.given];
    Head& head = *part.head;
    if (!wait && !head.merged.load(std::memory_order_acquire)) return;
    ThreadTeam::WaitUntil([&] { return head.merged.load(std::memory_order_acquire); });
    const float* partials = scratch_.Floats(0) + PartialsAt(head);
    const int64_t part_floats = PartFloats(head);
    GivePart(head.task, part.unit, part.weights, partials + part.unit * part_floats,
             partials + head.units * part_floats);
    if (head.given.fetch_add(1, std::memory_order_acq_rel) + 1 == head.units) Attended(head, layer);
  }
}

void StepAttention::Attended(const Head& head, int layer) {
  if (hook_ == nullptr || head.slice->tokens.size() != 1) return;
  if (head.compared != nullptr) {
    head.compared->nearest = head.comparison.nearest;
    head.compared->cosine = head.comparison.cosine;
  }
  // After the last head other threads would only wait.
  const bool last = to_attend_.fetch_sub(1, std::memory_order_relaxed) == 1;
  if (last && team_.size() > 1 && hook_->AfterHeadMayBeLate(head.slice_index)) {
    const auto slices = static_cast<int64_t>(slices_.size());
    team_.Leave(after_head_, (layer * slices + head.slice_index) * layout_.kv_heads + head.kv_head);
  } else {
    hook_->AfterHead(layer, head.slice_index, head.kv_head);
  }
}

void StepAttention::Tile(Head& head, int32_t unit, int thread, const float* q, float* out) {
  const int count = static_cast<int>(head.slice->tokens.size());
  const bool sums = head.sums_columns;
  // Where column sums are kept, one unit sees all tokens of one query head in order, so that they add up in one order.
  const int first_head = sums ? unit : 0, heads = sums ? 1 : group_;
  const int at_once = sums ? kMostQueries : TileTokens(count);
  // The longest first: threads end together.
  const int end = sums ? count : count - unit * at_once;
  for (int begin = sums ? 0 : std::max(0, end - at_once); begin < end; begin += at_once) {
    const float* query[kTileQueries];
    float* to[kTileQueries];
    float* column_sums[kTileQueries];
    int32_t visible[kTileQueries];
    int queries = 0;
    for (int i = begin; i < std::min(end, begin + at_once); ++i) {
      for (int g = first_head; g < first_head + heads; ++g) {
        const int64_t at = ((head.first_row + i) * heads_ + int64_t{head.kv_head} * group_ + g) * layout_.head_dim;
        query[queries] = q + at;
        to[queries] = out + at;
        visible[queries] = head.rows->rows() - count + i + 1;
        if (sums) column_sums[queries] = head.rows->column_sums()[g].data();
        ++queries;
      }
    }
    AttentionTask task;
    head.pages.SetIn(*head.rows, task);
    task.rows = visible[queries - 1];
    if (task.order == nullptr) task.slots = task.rows;
    task.head_dim = layout_.head_dim;
    task.scale = scale_;
    task.queries = queries;
    task.q = query;
    task.visible = visible;
    task.out = to;
    task.column_sums = sums ? column_sums : nullptr;
    Attend(layout_.type, task, threads_[thread]->scratch.Floats(ScratchOf(task).end));
  }
}

void StepAttention::PrepareWithHook(Head& head, int layer, const float* q, float* out) {
  if (hook_ != nullptr) hook_->BeforeHead(layer, head.slice_index, head.kv_head);
  Prepare(head, layer, q, out);
}

void StepAttention::AttendWhole(Head& head, int layer, int thread, size_t index, const float* q, float* out) {
  if (head.taken.exchange(true, std::memory_order_relaxed)) return;
  // The caches hold what the hook has read of its rows; and other threads compute while this one reads memory.
  if (attends_at_once_) {
    PrepareWithHook(head, layer, q, out);
  } else {
    ThreadTeam::WaitUntil([&] { return head.prepared.load(std::memory_order_acquire); });
  }
  // Of few heads each would begin with memory that nobody has asked for.
  const bool many = whole_.size() > static_cast<size_t>(team_.size());
  head.task.ahead = many ? threads_[thread]->reader.Begin(index) : nullptr;
  Attend(layout_.type, head.task, threads_[thread]->scratch.Floats(ScratchOf(head.task).end));
  Attended(head, layer);
}

void StepAttention::WholeHeads(int layer, int thread, const float* q, float* out) {
  HeadReader& reader = threads_[thread]->reader;
  const auto threads = static_cast<size_t>(team_.size());
  reader.Clear();
  for (size_t i = thread; i < whole_.size(); i += threads) reader.Add(*whole_[i]->rows, whole_[i]->by_slot);
  for (size_t i = thread; i < whole_.size(); i += threads) AttendWhole(*whole_[i], layer, thread, i / threads, q, out);
  // From the end, so that the others' next heads stay theirs.
  for (size_t i = whole_.size(); i-- > 0;) {
    if (whole_[i]->taken.load(std::memory_order_relaxed)) continue;
    reader.Clear();
    reader.Add(*whole_[i]->rows, whole_[i]->by_slot);
    AttendWhole(*whole_[i], layer, thread, 0, q, out);
  }
}

void StepAttention::Work(int layer, int thread, const float* q, float* out) {
  Thread& own = *threads_[thread];
  own.used = 0;
  own.kept.clear();
  own.given = 0;
  for (size_t i = next_prepare_.fetch_add(1); i < prepare_.size(); i = next_prepare_.fetch_add(1)) {
    PrepareWithHook(*prepare_[i], layer, q, out);
    prepare_[i]->prepared.store(true, std::memory_order_release);
  }
  auto units = [&](bool split) {
    for (Head* head : now_) {
      if (head->split != split || head->whole) continue;
      ThreadTeam::WaitUntil([&] { return head->prepared.load(std::memory_order_acquire); });
      for (int32_t unit = head->next_unit.fetch_add(1); unit < head->units; unit = head->next_unit.fetch_add(1)) {
        if (!split) {
          Tile(*head, unit, thread, q, out);
          continue;
        }
        if (head->score_units > 0) ScoreFor(*head, unit, thread);
        Part(*head, layer, unit, thread);
      }
      if (split) GiveParts(layer, thread, /*wait=*/false);
    }
  };
  units(/*split=*/false);
  WholeHeads(layer, thread, q, out);
  units(/*split=*/true);
  GiveParts(layer, thread, /*wait=*/true);
}

void StepAttention::Run(int layer, const float* q, float* out) {
  FindHeads(layer);
  team_.Run([&](int thread) { Work(layer, thread, q, out); });
}

}  // namespace tidepool
