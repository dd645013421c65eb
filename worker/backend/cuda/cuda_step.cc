// Steps of the `cuda` backend: what is launched, in which order.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/check.h"
#include "worker/backend/cuda/cuda_backend.h"
#include "worker/backend/cuda/for_lanes.h"
#include "worker/kernels/cpu/elementwise.h"

namespace tidepool::cuda {
namespace {

// CTAs that a multiprocessor runs at a time, of the attention kernels.
constexpr int kCtasOfMultiprocessor = 4;
constexpr int kLeastPagesOfSplit = 4;  // one for each warp

// What the slice's queries attend to is added to sums of the head (AddColumnSums).
bool SumsAttention(const StepSlice& slice, int layer, int kv_head) {
  const HeadRows& head = slice.rows->head(layer, kv_head);
  return head.keeps_column_sums() && (!slice.decodes || head.keeps_step_sums() || head.adds_steps_to_column_sums());
}

// For the least of 1, 2, 4, 8 that is not below `count`, at most 8.
template <class With>
void ForCount(int count, With&& with) {
  if (count <= 1) return with.template operator()<1>();
  if (count <= 2) return with.template operator()<2>();
  if (count <= 4) return with.template operator()<4>();
  return with.template operator()<8>();
}

bool AnyPacked(const SequenceRows& rows, int layer) {
  for (int kv_head = 0; kv_head < rows.kv_heads(); ++kv_head) {
    if (!rows.head(layer, kv_head).groups().empty()) return true;
  }
  return false;
}

}  // namespace

CudaBackend::Plan CudaBackend::MakePlan(absl::Span<const StepSlice> slices) {
  Plan plan;
  plan.slices = slices;
  plan.by_rank.resize(slices.size());
  std::iota(plan.by_rank.begin(), plan.by_rank.end(), 0);
  const auto multi = std::stable_partition(plan.by_rank.begin(), plan.by_rank.end(),
                                           [&](int i) { return slices[i].tokens.size() == 1; });
  plan.singles = static_cast<int>(multi - plan.by_rank.begin());
  const auto ranks = static_cast<int>(slices.size());
  const int kv_heads = config_.kv_heads, pairs = config_.rope_dims / 2;
  std::vector<int32_t> token_ids, slice_of_token, single_rows;
  for (int rank = 0; rank < ranks; ++rank) {
    const StepSlice& slice = plan.slice(rank);
    plan.first_token.push_back(plan.tokens);
    token_ids.insert(token_ids.end(), slice.tokens.begin(), slice.tokens.end());
    slice_of_token.resize(token_ids.size(), rank);
    plan.tokens = static_cast<int32_t>(token_ids.size());
  }
  for (int rank = 0; rank < plan.singles; ++rank) single_rows.push_back(plan.first_token[rank]);
  plan.products = plan.tokens > kMostVectorRows;

  std::vector<float> cosine(static_cast<size_t>(plan.tokens) * pairs), sine(cosine.size());
  plan.slots.resize(static_cast<size_t>(config_.layers) * kv_heads * plan.tokens);
  plan.heads.resize(config_.layers);
  for (std::vector<HeadPages>& heads : plan.heads) heads.resize(static_cast<size_t>(ranks) * kv_heads);
  std::vector<UpdateEntries::Update> updates;
  for (int rank = 0; rank < ranks; ++rank) {
    const StepSlice& slice = plan.slice(rank);
    const auto count = static_cast<int32_t>(slice.tokens.size());
    const size_t first = plan.first_token[rank];
    for (int32_t i = 0; i < count; ++i) {
      RopeTable(config_.rope_frequencies.data(), pairs, config_.rope_magnitude, int64_t{slice.first_position} + i,
                cosine.data() + (first + i) * pairs, sine.data() + (first + i) * pairs);
    }
    PageTables& tables = PageTables::Of(device_.get(), *pages_, *slice.rows);
    tables.Reserve();
    for (int layer = 0; layer < config_.layers; ++layer) {
      for (int kv_head = 0; kv_head < kv_heads; ++kv_head) {
        plan.heads[layer][rank * kv_heads + kv_head] = tables.Refresh(layer, kv_head, updates);
        const HeadRows& head = slice.rows->head(layer, kv_head);
        std::copy_n(head.order().end() - count, count,
                    plan.slots.begin() + (static_cast<int64_t>(layer) * kv_heads + kv_head) * plan.tokens + first);
      }
    }
  }
  ApplyUpdates(updates);
  plan.token_ids = uploads_.Upload(absl::MakeConstSpan(token_ids));
  plan.step.slice = uploads_.Upload(absl::MakeConstSpan(slice_of_token));
  plan.step.cosine = uploads_.Upload(absl::MakeConstSpan(cosine));
  plan.step.sine = uploads_.Upload(absl::MakeConstSpan(sine));
  plan.single_rows = uploads_.Upload(absl::MakeConstSpan(single_rows));
  plan.slots_on_device = uploads_.Upload(absl::MakeConstSpan(plan.slots));
  // All layers in one copy.
  std::vector<HeadPages> all;
  for (const std::vector<HeadPages>& heads : plan.heads) all.insert(all.end(), heads.begin(), heads.end());
  const HeadPages* on_device = uploads_.Upload(absl::MakeConstSpan(all));
  for (int layer = 0; layer < config_.layers; ++layer) {
    plan.heads_on_device.push_back(on_device + static_cast<size_t>(layer) * ranks * kv_heads);
  }
  return plan;
}

void CudaBackend::RefreshLayer(Plan& plan, int layer) {
  std::vector<UpdateEntries::Update> updates;
  std::vector<HeadPages>& heads = plan.heads[layer];
  const int kv_heads = config_.kv_heads;
  bool changed = false;
  for (size_t rank = 0; rank < plan.by_rank.size(); ++rank) {
    PageTables& tables = PageTables::Of(device_.get(), *pages_, *plan.slice(static_cast<int>(rank)).rows);
    for (int kv_head = 0; kv_head < kv_heads; ++kv_head) {
      HeadPages& of = heads[rank * kv_heads + kv_head];
      const HeadPages now = tables.Refresh(layer, kv_head, updates);
      changed = changed || now.pages != of.pages;
      of = now;
    }
  }
  ApplyUpdates(updates);
  if (changed) plan.heads_on_device[layer] = uploads_.Upload(absl::MakeConstSpan(heads));
}

int CudaBackend::QueriesRead(const Plan& plan, int slice, const StepHook& hook) {
  return std::min(static_cast<int>(plan.slices[slice].tokens.size()), std::max(0, hook.QueriesRead(slice)));
}

void CudaBackend::FetchQueries(const Plan& plan, int layer, const StepHook& hook) {
  const int64_t q_width = int64_t{config_.heads} * config_.head_dim;
  float* to = host_queries_.As<float>() + plan.host_query_rows * (hook.ActsInStep() ? 0 : layer) * q_width;
  for (size_t rank = 0; rank < plan.by_rank.size(); ++rank) {
    const auto tokens = static_cast<int>(plan.slice(static_cast<int>(rank)).tokens.size());
    const int count = QueriesRead(plan, plan.by_rank[rank], hook);
    if (count == 0) continue;
    device_->CopyToHost(to, q_.As<float>() + (plan.first_token[rank] + tokens - count) * q_width,
                        static_cast<size_t>(count * q_width) * sizeof(float));
    to += count * q_width;
  }
}

std::vector<SliceQueries> CudaBackend::QueriesOf(const Plan& plan, int layer, const StepHook& hook) const {
  const int64_t q_width = int64_t{config_.heads} * config_.head_dim;
  const float* from = host_queries_.As<float>() + plan.host_query_rows * (hook.ActsInStep() ? 0 : layer) * q_width;
  std::vector<SliceQueries> queries(plan.slices.size());
  for (int slice : plan.by_rank) {
    const int count = QueriesRead(plan, slice, hook);
    queries[slice] = {from, q_width, static_cast<int>(plan.slices[slice].tokens.size()) - count};
    from += count * q_width;
  }
  return queries;
}

void CudaBackend::Step(absl::Span<const StepSlice> slices, StepHook* hook) {
  int64_t tokens = 0;
  for (const StepSlice& slice : slices) tokens += static_cast<int64_t>(slice.tokens.size());
  if (tokens == 0) return;
  const bool acts = hook != nullptr && hook->ActsInStep();
  const int64_t width = config_.width, q_width = int64_t{config_.heads} * config_.head_dim,
                kv_width = int64_t{config_.kv_heads} * config_.head_dim;
  mutex_.Lock();
  in_step_ = true;
  Wait();
  uploads_.Hold();
  device_->JoinAside();  // rows of the last step may still be on their way
  FlushWrites();
  Plan plan = MakePlan(slices);
  RememberFresh(plan);
  pending_sums_.clear();
  sums_used_ = 0;
  ReserveSums(plan);
  q_.Get<float>(tokens * q_width);
  if (plan.products) q_half_.Get<uint16_t>(tokens * q_width);
  k_.Get<float>(tokens * kv_width);
  v_.Get<float>(tokens * kv_width);
  attended_.Get<float>(tokens * q_width);
  gate_.Get<float>(tokens * config_.ffn_width);
  up_.Get<float>(tokens * config_.ffn_width);
  if (hook != nullptr) {
    for (size_t i = 0; i < slices.size(); ++i) plan.host_query_rows += QueriesRead(plan, static_cast<int>(i), *hook);
    host_queries_.Get<float>(plan.host_query_rows * (acts ? 1 : config_.layers) * q_width);
  }
  Embed::Args embed{weights_->embedding, plan.token_ids, x_.Get<float>(tokens * width)};
  device_->Launch<Embed>({plan.tokens}, embed);
  mutex_.Unlock();

  for (int layer = 0; layer < config_.layers; ++layer) RunLayer(plan, layer, hook);

  {
    MutexLock lock(&mutex_);
    Logits(plan);
    Wait();
    AddColumnSums(plan);
    uploads_.Release();
  }
  HandOutLogits(plan);
  for (int layer = 0; layer < config_.layers && hook != nullptr && !acts; ++layer) {
    CallHook(plan, layer, hook);
    hook->AfterAttention(layer);
  }
  MutexLock lock(&mutex_);
  SendWrites();
  in_step_ = false;
  fresh_wanted_ = false;
}

void CudaBackend::RememberFresh(const Plan& plan) {
  fresh_ = Fresh();
  for (size_t rank = 0; rank < plan.by_rank.size(); ++rank) {
    fresh_.rows.push_back(plan.slice(static_cast<int>(rank)).rows);
    fresh_.count.push_back(static_cast<int32_t>(plan.slice(static_cast<int>(rank)).tokens.size()));
  }
  fresh_.first_token = plan.first_token;
  fresh_.slots = plan.slots;
  fresh_.tokens = plan.tokens;
  fresh_rows_.Get<char>(plan.slots.size() * layout_.row_bytes());
}

// Of a prompt as they come, layer by layer; of a few tokens all with the last, for which a copy each would be too many.
void CudaBackend::SendFresh(const Plan& plan, int layer) {
  const bool each = plan.products, last = layer + 1 == config_.layers;
  if (!each && !last) return;
  const size_t all = plan.slots.size() * layout_.row_bytes(), layer_bytes = all / config_.layers;
  const size_t first = each ? layer * layer_bytes : 0;
  device_->CopyToHostAside(host_fresh_rows_.Get<char>(all) + first, fresh_rows_.As<char>() + first,
                           each ? layer_bytes : all);
  fresh_.on_host = last;
}

void CudaBackend::RunLayer(Plan& plan, int layer, StepHook* hook) {
  const DeviceLayer& w = weights_->layers[layer];
  const bool acts = hook != nullptr && hook->ActsInStep();
  const int kv_heads = config_.kv_heads, head_dim = config_.head_dim, tokens = plan.tokens;
  {
    MutexLock lock(&mutex_);
    if (acts) RefreshLayer(plan, layer);  // the hook may have made the tables move
    PrepareRows::Args norm{.op = PrepareRows::Op::kNorm, .columns = config_.width, .x = x_.As<float>()};
    norm.weight = w.attention_norm;
    norm.epsilon = config_.rms_epsilon;
    const Use qkv[] = {
        {&w.q, w.q_bias, q_.As<float>()}, {&w.k, w.k_bias, k_.As<float>()}, {&w.v, w.v_bias, v_.As<float>()}};
    MatMul(qkv, Prepare(norm, tokens, qkv, plan.products), tokens, plan.products, /*add=*/false);

    RotateAndStore::Args rotate;
    rotate.step = plan.step;
    rotate.memory = pages_->view();
    rotate.heads = plan.heads_on_device[layer];
    rotate.slots = plan.slots_on_device + static_cast<int64_t>(layer) * kv_heads * tokens;
    rotate.tokens = tokens;
    rotate.query_heads = config_.heads;
    rotate.kv_heads = kv_heads;
    rotate.head_dim = head_dim;
    rotate.pairs = config_.rope_dims / 2;
    rotate.neox = config_.rope_neox;
    rotate.q = q_.As<float>();
    rotate.q_half = plan.singles < static_cast<int>(plan.by_rank.size())
                        ? q_half_.Get<uint16_t>(static_cast<size_t>(tokens) * config_.heads * head_dim)
                        : nullptr;
    rotate.k = k_.As<float>();
    rotate.v = v_.As<float>();
    rotate.q_norm = w.q_norm;
    rotate.k_norm = w.k_norm;
    rotate.epsilon = config_.rms_epsilon;
    rotate.fresh = fresh_rows_.As<uint16_t>() + static_cast<int64_t>(layer) * kv_heads * tokens * 2 * head_dim;
    device_->Launch<RotateAndStore>(RotateAndStore::GridOf(rotate), rotate);
    if (fresh_wanted_) SendFresh(plan, layer);
    if (hook != nullptr) FetchQueries(plan, layer, *hook);
    if (acts) Wait();
  }
  if (acts) CallHook(plan, layer, hook);
  {
    MutexLock lock(&mutex_);
    if (acts) {
      FlushWrites();
      RefreshLayer(plan, layer);
    }
    Attention(plan, layer);
  }
  if (acts) hook->AfterAttention(layer);
  MutexLock lock(&mutex_);
  const Use output[] = {{&w.output, nullptr, x_.As<float>()}};
  PrepareRows::Args copy{.op = PrepareRows::Op::kCopy, .columns = config_.heads * head_dim, .x = attended_.As<float>()};
  const DeviceActivations attended =
      AttendedArePrepared(plan, layer)
          ? DeviceActivations{nullptr, form_halves_.As<uint16_t>(), form_values_.As<int8_t>(), form_scales_.As<float>(),
                              form_sums_.As<float>()}
          : Prepare(copy, tokens, output, plan.products);
  MatMul(output, attended, tokens, plan.products, /*add=*/true);
  PrepareRows::Args norm{.op = PrepareRows::Op::kNorm, .columns = config_.width, .x = x_.As<float>()};
  norm.weight = w.ffn_norm;
  norm.epsilon = config_.rms_epsilon;
  const Use gate_up[] = {{&w.gate, nullptr, gate_.As<float>()}, {&w.up, nullptr, up_.As<float>()}};
  MatMul(gate_up, Prepare(norm, tokens, gate_up, plan.products), tokens, plan.products, /*add=*/false);
  PrepareRows::Args silu{.op = PrepareRows::Op::kSilu, .columns = config_.ffn_width, .x = gate_.As<float>()};
  silu.up = up_.As<float>();
  const Use down[] = {{&w.down, nullptr, x_.As<float>()}};
  MatMul(down, Prepare(silu, tokens, down, plan.products), tokens, plan.products, /*add=*/true);
}

void CudaBackend::CallHook(Plan& plan, int layer, StepHook* hook) {
  hook->BeforeAttention(layer, QueriesOf(plan, layer, *hook));
  std::vector<std::pair<int, int>> busy;  // slice and kv head
  for (int slice = 0; slice < static_cast<int>(plan.slices.size()); ++slice) {
    for (int kv_head = 0; kv_head < config_.kv_heads; ++kv_head) {
      if (hook->Busy(slice, kv_head)) busy.emplace_back(slice, kv_head);
    }
  }
  ParallelFor(static_cast<int64_t>(busy.size()),
              [&](int64_t i) { hook->BeforeHead(layer, busy[i].first, busy[i].second); });
}

void CudaBackend::Attention(Plan& plan, int layer) {
  if (plan.singles > 0) AttendSingles(plan, layer);
  for (int rank = plan.singles; rank < static_cast<int>(plan.by_rank.size()); ++rank) AttendSlice(plan, layer, rank);
}

bool CudaBackend::AttendedArePrepared(const Plan& plan, int layer) const {
  return !plan.products && plan.singles == static_cast<int>(plan.by_rank.size()) && config_.head_dim % kBlock == 0 &&
         FactsOf(weights_->layers[layer].output.format).scales != 0;
}

void CudaBackend::AttendSingles(Plan& plan, int layer) {
  const int kv_heads = config_.kv_heads, head_dim = config_.head_dim, group = config_.heads / kv_heads;
  const std::vector<HeadPages>& heads = plan.heads[layer];
  int32_t most_pages = 1;
  for (int i = 0; i < plan.singles * kv_heads; ++i) most_pages = std::max(most_pages, heads[i].pages);
  const int at_once = group <= 1 ? 1 : group <= 2 ? 2 : group <= 4 ? 4 : 8, parts = CeilDiv(group, at_once);
  const int wanted = CeilDiv(multiprocessors_ * kCtasOfMultiprocessor, kv_heads * parts * plan.singles);
  AttendArgs args;
  args.memory = pages_->view();
  args.heads = plan.heads_on_device[layer];
  args.rows = plan.single_rows;
  args.q = q_.As<float>();
  args.query_heads = config_.heads;
  args.kv_heads = kv_heads;
  args.scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  args.splits = std::clamp(std::min(wanted, CeilDiv(most_pages, kLeastPagesOfSplit)), 1, MergeSplits::kMostSplits);
  const size_t partials = static_cast<size_t>(plan.singles) * config_.heads * args.splits;
  args.part_out = part_out_.Get<float>(partials * head_dim);
  args.part_maximum = part_maximum_.Get<float>(partials);
  args.part_sum = part_sum_.Get<float>(partials);
  const Grid grid{args.splits, kv_heads * parts, plan.singles};
  bool packed = false;
  for (int rank = 0; rank < plan.singles; ++rank) packed = packed || AnyPacked(*plan.slice(rank).rows, layer);
  ForLanes(LanesOf(head_dim), [&]<int kLanes>() {
    ForCount(at_once, [&]<int kQueries>() {
      if (packed) return device_->Launch<AttendPacked<kLanes, kQueries>>(grid, args);
      device_->Launch<AttendSplit<kLanes, kQueries>>(grid, args);
    });
  });
  MergeSplits::Args merge{.parts = args};
  merge.log_sum = log_sum_.Get<float>(static_cast<size_t>(plan.tokens) * config_.heads);
  const size_t elements = static_cast<size_t>(plan.tokens) * config_.heads * head_dim;
  if (AttendedArePrepared(plan, layer) && plan.tokens > 1) {
    merge.halves = form_halves_.Get<uint16_t>(elements);
  } else if (AttendedArePrepared(plan, layer)) {
    merge.values = form_values_.Get<int8_t>(elements);
    merge.scales = form_scales_.Get<float>(elements / kBlock);
    merge.sums = form_sums_.Get<float>(elements / kBlock);
  } else {
    merge.out = attended_.As<float>();
  }
  device_->Launch<MergeSplits>({config_.heads, plan.singles}, merge);

  std::vector<ScoreJob> jobs;
  for (int rank = 0; rank < plan.singles; ++rank) {
    for (int kv_head = 0; kv_head < kv_heads; ++kv_head) {
      if (!SumsAttention(plan.slice(rank), layer, kv_head)) continue;
      const HeadPages& head = heads[rank * kv_heads + kv_head];
      ScoreJob job;
      job.head = head;
      job.q = args.q + (static_cast<int64_t>(plan.first_token[rank]) * config_.heads + kv_head * group) * head_dim;
      job.log_sum = merge.log_sum + static_cast<int64_t>(rank) * config_.heads + kv_head * group;
      job.out = TakeSums(rank, layer, kv_head, head.pages * kSlotsOfPage);
      job.queries = group;
      jobs.push_back(job);
    }
  }
  if (!jobs.empty())
    LaunchScores(uploads_.Upload(absl::MakeConstSpan(jobs)), static_cast<int>(jobs.size()), most_pages);
}

void CudaBackend::LaunchScores(const ScoreJob* jobs, int count, int most_pages) {
  ForLanes(LanesOf(config_.head_dim), [&]<int kLanes>() {
    using Kernel = ScoreRows<kLanes>;
    const float scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim));
    device_->Launch<Kernel>({CeilDiv(most_pages, Kernel::kThreads / 32), count}, {pages_->view(), jobs, scale});
  });
}

void CudaBackend::AttendSlice(Plan& plan, int layer, int rank) {
  const int kv_heads = config_.kv_heads, head_dim = config_.head_dim, group = config_.heads / kv_heads;
  const auto tokens = static_cast<int32_t>(plan.slice(rank).tokens.size());
  const int64_t first = plan.first_token[rank];
  const HeadPages* heads = plan.heads[layer].data() + rank * kv_heads;
  int32_t most_pages = 1;
  for (int kv_head = 0; kv_head < kv_heads; ++kv_head) most_pages = std::max(most_pages, heads[kv_head].pages);

  MarkBirths::Args births;
  births.heads = plan.heads_on_device[layer] + rank * kv_heads;
  births.stride = int64_t{most_pages} * kSlotsOfPage;
  births.births = births_.Get<int32_t>(kv_heads * births.stride);
  device_->Launch<MarkBirths>({CeilDiv(births.stride, MarkBirths::kThreads), kv_heads}, births);
  births.new_slots = plan.slots_on_device + static_cast<int64_t>(layer) * kv_heads * plan.tokens + first;
  births.new_stride = plan.tokens;
  births.new_count = tokens;
  device_->Launch<MarkBirths>({CeilDiv(tokens, MarkBirths::kThreads), kv_heads}, births);

  PrefillArgs args;
  args.memory = pages_->view();
  args.heads = births.heads;
  args.births = births.births;
  args.birth_stride = births.stride;
  args.q = q_half_.As<uint16_t>() + first * config_.heads * head_dim;
  args.tokens = tokens;
  args.query_heads = config_.heads;
  args.kv_heads = kv_heads;
  args.scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  args.out = attended_.As<float>() + first * config_.heads * head_dim;
  args.log_sum = log_sum_.Get<float>(static_cast<size_t>(plan.tokens) * config_.heads);
  ForLanes(LanesOf(head_dim), [&]<int kLanes>() {
    using Kernel = FlashPrefill<kLanes>;
    const Grid grid{CeilDiv(int64_t{group} * CeilDiv(tokens, kTileTokens), Kernel::kWarps), kv_heads};
    if (AnyPacked(*plan.slice(rank).rows, layer)) {
      device_->Launch<FlashPacked<kLanes>>(grid, args);
    } else {
      device_->Launch<Kernel>(grid, args);
    }
    for (int kv_head = 0; kv_head < kv_heads; ++kv_head) {
      if (!SumsAttention(plan.slice(rank), layer, kv_head)) continue;
      const int32_t pages = heads[kv_head].pages;
      float* sums = TakeSums(rank, layer, kv_head, pages * kSlotsOfPage);
      device_->Launch<FlashColumnSums<kLanes>>({pages, group}, {args, kv_head, sums});
    }
  });
}

void CudaBackend::ReserveSums(const Plan& plan) {
  size_t floats = 0;
  const int group = config_.heads / config_.kv_heads;
  for (size_t rank = 0; rank < plan.by_rank.size(); ++rank) {
    const StepSlice& slice = plan.slice(static_cast<int>(rank));
    for (int layer = 0; layer < config_.layers; ++layer) {
      for (int kv_head = 0; kv_head < config_.kv_heads; ++kv_head) {
        if (!SumsAttention(slice, layer, kv_head)) continue;
        // A hook may still add pages: room for as many again.
        floats += static_cast<size_t>(group) * slice.rows->head(layer, kv_head).slots() * 2;
      }
    }
  }
  if (floats > 0) sums_.Get<float>(floats);
  sums_room_ = floats;
}

float* CudaBackend::TakeSums(int rank, int layer, int kv_head, int32_t slots) {
  const size_t floats = static_cast<size_t>(config_.heads / config_.kv_heads) * slots;
  TIDEPOOL_CHECK(sums_used_ + floats <= sums_room_);
  pending_sums_.push_back({rank, layer, kv_head, slots, sums_used_});
  float* sums = sums_.As<float>() + sums_used_;
  sums_used_ += floats;
  return sums;
}

void CudaBackend::AddColumnSums(const Plan& plan) {
  if (pending_sums_.empty()) return;
  float* host = host_sums_.Get<float>(sums_used_);
  device_->CopyToHost(host, sums_.As<float>(), sums_used_ * sizeof(float));
  Wait();
  team_->ForEach(static_cast<int64_t>(pending_sums_.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const SumsOfHead& of = pending_sums_[i];
      const float* from = host + of.at;
      const StepSlice& slice = plan.slice(of.rank);
      HeadRows& head = slice.rows->head(of.layer, of.kv_head);
      const bool together = slice.decodes && head.keeps_step_sums();
      for (std::vector<float>& of_head : head.column_sums()) {
        std::vector<float>& sums = together ? head.step_sums() : of_head;
        for (int32_t slot = 0; slot < of.slots; ++slot) sums[slot] += from[slot];
        from += of.slots;
      }
    }
  });
}

}  // namespace tidepool::cuda
