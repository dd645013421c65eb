#include "worker/backend/cuda/cuda_backend.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "worker/backend/cuda/create.h"
#include "worker/kernels/cpu/attention.h"

namespace tidepool::cuda {
namespace {

constexpr size_t kMostWritten = 4096;  // rows on their way into slots: 2 MiB at a head_dim of 128

// What is free beside weights and pages: so much of it at most is for recall indexes, 1 in so many bytes.
constexpr size_t kIndexPart = 4;

constexpr size_t kMostPackedBytes = size_t{64} << 20;  // of groups on their way into packed pages, about

int64_t KeyOf(const RowPlace& place) { return int64_t{place.place} * 64 + place.row; }

absl::Status CheckOptions(const Model& model, const BackendOptions& options) {
  if (options.kv_type != KvType::kF16) return absl::InvalidArgumentError("kv_type: cuda keeps f16 rows only");
  const ModelConfig& config = model.config();
  for (const auto& [name, value] : {std::pair{"width", config.width},
                                    {"ffn_width", config.ffn_width},
                                    {"heads * head_dim", config.heads * config.head_dim}}) {
    if (value % kBlock != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, ": ", value, " is not a multiple of ", kBlock, ", as cuda needs"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> CreateOn(std::unique_ptr<Device> device, std::shared_ptr<const Model> model,
                                                  const BackendOptions& options) {
  if (options.threads < 1 || options.threads > 256) {
    return absl::InvalidArgumentError(absl::StrCat("threads: ", options.threads, " is not in 1 to 256"));
  }
  TP_RETURN_IF_ERROR(CheckShape(model->config()));
  TP_RETURN_IF_ERROR(CheckOptions(*model, options));
  const KvLayout layout = LayoutOf(*model, options.kv_type);
  auto team = std::make_unique<ThreadTeam>(options.threads);
  TP_ASSIGN_OR_RETURN(std::unique_ptr<DeviceWeights> weights,
                      DeviceWeights::Load(*model, options.f32_weights, device.get(), *team));
  BackendOptions sized = options;
  if (options.device_memory != 0) {
    sized.kv_bytes = static_cast<size_t>(options.device_memory * static_cast<double>(device->facts().free_bytes));
  }
  TP_ASSIGN_OR_RETURN(const int32_t pages, PagesOf(sized, layout, kPageSlots * layout.row_bytes()));
  TP_ASSIGN_OR_RETURN(std::unique_ptr<DevicePages> device_pages, DevicePages::Create(device.get(), layout, pages));
  return std::make_unique<CudaBackend>(std::move(device), std::move(model), options, layout, pages, std::move(team),
                                       std::move(weights), std::move(device_pages));
}

CudaBackend::CudaBackend(std::unique_ptr<Device> device, std::shared_ptr<const Model> model,
                         const BackendOptions& options, KvLayout layout, int32_t pages,
                         std::unique_ptr<ThreadTeam> team, std::unique_ptr<DeviceWeights> weights,
                         std::unique_ptr<DevicePages> device_pages)
    : device_(std::move(device)),
      model_(std::move(model)),
      config_(model_->config()),
      rope_{config_.rope_frequencies, config_.rope_neox, config_.rope_magnitude},
      layout_(std::move(layout)),
      multiprocessors_(device_->facts().multiprocessors),
      team_(std::move(team)),
      weights_(std::move(weights)),
      pages_(std::move(device_pages)),
      pool_(pages, DevicePages::BytesOf(layout_)),
      uploads_(device_.get()),
      x_(device_.get()),
      q_(device_.get()),
      q_half_(device_.get()),
      k_(device_.get()),
      v_(device_.get()),
      attended_(device_.get()),
      gate_(device_.get()),
      up_(device_.get()),
      logits_(device_.get()),
      form_floats_(device_.get()),
      form_halves_(device_.get()),
      form_values_(device_.get()),
      form_scales_(device_.get()),
      form_sums_(device_.get()),
      weights_as_halves_(device_.get()),
      part_out_(device_.get()),
      part_maximum_(device_.get()),
      part_sum_(device_.get()),
      log_sum_(device_.get()),
      births_(device_.get()),
      moved_(device_.get()),
      packed_(device_.get()),
      job_scores_(device_.get()),
      alike_keys_(device_.get()),
      alike_lengths_(device_.get()),
      alike_cosines_(device_.get()),
      alike_best_(device_.get()),
      host_cosines_(device_.get(), true),
      host_best_(device_.get(), true),
      index_room_{.bytes = device_->facts().free_bytes / kIndexPart},
      scan_scores_(device_.get()),
      scan_answer_(device_.get()),
      host_answer_(device_.get(), true),
      host_index_(device_.get(), true),
      sums_(device_.get()),
      best_{DeviceBuffer(device_.get()), DeviceBuffer(device_.get())},
      best_ids_{DeviceBuffer(device_.get()), DeviceBuffer(device_.get())},
      host_best_logits_(device_.get(), true),
      host_best_ids_(device_.get(), true),
      host_queries_(device_.get(), true),
      host_logits_(device_.get(), true),
      host_sums_(device_.get(), true),
      host_rows_(device_.get(), true),
      host_scores_(device_.get(), true),
      written_{Written(device_.get()), Written(device_.get())},
      fresh_rows_(device_.get()),
      host_fresh_rows_(device_.get(), true) {
  pool_.set_hold([this](KvPrecision precision, int32_t page) {
    pages_->Hold(precision, page, [this](absl::Span<const CopyPages::Copy> copies, size_t bytes_each) {
      MutexLock lock(&mutex_);
      FlushWrites();  // they go by place
      CopyWhole(copies, bytes_each);
    });
  });
  pool_.set_release(
      [this](KvPrecision precision, absl::Span<const int32_t> pages) { pages_->Release(precision, pages); });
}

CudaBackend::~CudaBackend() {
  device_->Synchronize();
  device_->SynchronizeAside();
}

void CudaBackend::ParallelFor(int64_t count, absl::FunctionRef<void(int64_t)> body) {
  team_->ForEach(count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i);
  });
}

const char* CudaBackend::FreshRows(const SequenceRows& rows, int layer, int kv_head, absl::Span<const int32_t> slots) {
  const auto rank = static_cast<size_t>(std::find(fresh_.rows.begin(), fresh_.rows.end(), &rows) - fresh_.rows.begin());
  if (rank == fresh_.rows.size() || slots.empty()) return nullptr;
  const size_t head = static_cast<size_t>(layer) * layout_.kv_heads + kv_head;
  const auto first = fresh_.slots.begin() + static_cast<int64_t>(head * fresh_.tokens) + fresh_.first_token[rank];
  const auto end = first + fresh_.count[rank];
  const auto at = std::find(first, end, slots[0]);
  if (end - at < static_cast<int64_t>(slots.size()) || !std::equal(slots.begin(), slots.end(), at)) return nullptr;
  const size_t row_bytes = layout_.row_bytes();
  const size_t bytes = fresh_.slots.size() * row_bytes;
  char* on_host = host_fresh_rows_.Get<char>(bytes);
  if (!fresh_.on_host) {
    device_->CopyToHostAside(on_host, fresh_rows_.As<char>(), bytes);
    fresh_.on_host = true;
  }
  if (!std::exchange(fresh_.arrived, true)) device_->SynchronizeAside();
  fresh_wanted_ = true;
  return on_host + static_cast<size_t>(at - fresh_.slots.begin()) * row_bytes;
}

void CudaBackend::ReadRows(const SequenceRows& rows, int layer, int kv_head, absl::Span<const int32_t> slots,
                           char* out) {
  if (slots.empty()) return;
  const HeadRows& head = rows.head(layer, kv_head);
  const size_t bytes = slots.size() * layout_.row_bytes();
  MutexLock lock(&mutex_);
  FlushWrites();
  if (const char* fresh = FreshRows(rows, layer, kv_head, slots); fresh != nullptr) {
    std::memcpy(out, fresh, bytes);
    return;
  }
  std::vector<RowPlace> places;
  places.reserve(slots.size());
  for (int32_t slot : slots) places.push_back(PlaceOf(head, slot));
  auto* moved = moved_.Get<uint16_t>(bytes / 2);
  device_->Launch<MoveRows>({static_cast<int>(places.size())},
                            {pages_->view(), uploads_.Upload(absl::MakeConstSpan(places)), moved, false});
  char* host = host_rows_.Get<char>(bytes);
  device_->CopyToHost(host, moved, bytes);
  Wait();
  std::memcpy(out, host, bytes);
}

void CudaBackend::WriteRow(SequenceRows& rows, int layer, int kv_head, int32_t slot, const char* row) {
  const RowPlace place = PlaceOf(rows.head(layer, kv_head), slot);
  TIDEPOOL_CHECK(place.precision == KvPrecision::kF16);
  MutexLock lock(&mutex_);
  if (!in_step_) fresh_.rows.clear();  // it may be one of them
  const size_t row_bytes = layout_.row_bytes();
  if (const Written& last = written_[writing_]; !last.places.empty()) {
    const auto at = last.at.find(KeyOf(place));
    // Of a row that is under way another comes after it.
    if (last.places.size() == kMostWritten || (at != last.at.end() && at->second < last.sent)) FlushWrites();
  }
  Written& to = written_[writing_];
  const auto [at, added] = to.at.try_emplace(KeyOf(place), to.places.size());
  if (added) to.places.push_back(place);
  std::memcpy(to.rows.Get<char>(kMostWritten * row_bytes) + at->second * row_bytes, row, row_bytes);
}

void CudaBackend::SendWrites() {
  Written& of = written_[writing_];
  const size_t row_bytes = layout_.row_bytes(), first = of.sent * row_bytes, end = of.places.size() * row_bytes;
  if (first == end) return;
  device_->CopyToDeviceAside(of.on_device.Get<char>(kMostWritten * row_bytes) + first, of.rows.As<char>() + first,
                             end - first);
  of.sent = of.places.size();
}

void CudaBackend::FlushWrites() {
  if (!packed_moves_.empty()) {
    device_->Launch<MovePackedRows>({static_cast<int>(packed_moves_.size())},
                                    {pages_->view(), uploads_.Upload(absl::MakeConstSpan(packed_moves_))});
    packed_moves_.clear();
    moved_places_.clear();
  }
  Written& of = written_[writing_];
  if (of.places.empty()) return;
  SendWrites();
  device_->JoinAside();
  device_->Launch<MoveRows>(
      {static_cast<int>(of.places.size())},
      {pages_->view(), uploads_.Upload(absl::MakeConstSpan(of.places)), of.on_device.As<uint16_t>(), true});
  of.places.clear();
  of.at.clear();
  of.sent = 0;
  of.busy = true;
  writing_ = 1 - writing_;
  if (written_[writing_].busy) Wait();  // its rows are overwritten from now on
}

void CudaBackend::Wait() {
  device_->Synchronize();
  for (Written& of : written_) of.busy = false;
}

void CudaBackend::MoveToFront(const HeadRows& head) {
  std::vector<int32_t> plain, places;  // slots: by ascending position, by number
  for (const int32_t slot : head.order()) {
    if (!head.is_packed(slot)) plain.push_back(slot);
  }
  for (int32_t slot = 0; slot < head.slots() && places.size() < plain.size(); ++slot) {
    if (!head.is_packed(slot)) places.push_back(slot);
  }
  std::vector<RowPlace> from, to;  // of the rows that move
  for (size_t i = 0; i < plain.size(); ++i) {
    if (plain[i] == places[i]) continue;
    from.push_back(PlaceOf(head, plain[i]));
    to.push_back(PlaceOf(head, places[i]));
  }
  MutexLock lock(&mutex_);
  FlushWrites();
  fresh_.rows.clear();
  auto* moved = moved_.Get<uint16_t>(from.size() * layout_.row_bytes() / 2);
  const Grid grid{static_cast<int>(from.size())};
  const PageMemoryView view = pages_->view();
  device_->Launch<MoveRows>(grid, {view, uploads_.Upload(absl::MakeConstSpan(from)), moved, false});
  device_->Launch<MoveRows>(grid, {view, uploads_.Upload(absl::MakeConstSpan(to)), moved, true});
}

void CudaBackend::Repack(SequenceRows& rows, int layer, int kv_head) {
  HeadRows& head = rows.head(layer, kv_head);
  if (!head.in_order()) MoveToFront(head);
  head.Renumber(pool_);
}

char* CudaBackend::PackGroupsOf(KvPrecision precision, absl::Span<const uint16_t* const> rows, int64_t value_offset) {
  const auto groups = static_cast<int32_t>(rows.size() / kGroupTokens);
  char* packed = packed_.Get<char>(groups * pool_.page_bytes(precision));
  PackGroups::Args args{.rows = uploads_.Upload(rows), .value_offset = value_offset, .pages = packed};
  args.head_dim = layout_.head_dim;
  args.precision = precision;
  const int ranges = PackGroups::RangesOf(precision, layout_.head_dim);
  device_->Launch<PackGroups>({CeilDiv(ranges, PackGroups::kThreads), groups}, args);
  return packed;
}

void CudaBackend::CopyWhole(absl::Span<const CopyPages::Copy> copies, size_t bytes_each) {
  device_->Launch<CopyPages>({static_cast<int>(copies.size())},
                             {uploads_.Upload(copies), static_cast<int32_t>(bytes_each)});
}

void CudaBackend::Pack(SequenceRows& rows, KvPrecision precision, absl::Span<const PackTask> tasks) {
  // Groups are packed into scratch memory first: their rows' pages are freed before new ones are taken.
  const size_t bytes = pool_.page_bytes(precision);
  while (!tasks.empty()) {
    std::vector<const uint16_t*> from;
    size_t count = 0;  // of tasks
    for (; count < tasks.size() && (count == 0 || from.size() / kGroupTokens * bytes < kMostPackedBytes); ++count) {
      const HeadRows& head = rows.head(tasks[count].layer, tasks[count].kv_head);
      for (const int32_t slot : tasks[count].slots) {
        const RowPlace place = PlaceOf(head, slot);
        from.push_back(pages_->view().Keys(place.place) + place.row * layout_.head_dim);
      }
    }
    const char* packed = nullptr;
    {
      MutexLock lock(&mutex_);
      FlushWrites();
      packed = PackGroupsOf(precision, from, int64_t{kPageSlots} * layout_.head_dim);
    }
    for (const PackTask& task : tasks.subspan(0, count)) {
      HeadRows& head = rows.head(task.layer, task.kv_head);
      head.TakeForGroups(task.slots);
      Repack(rows, task.layer, task.kv_head);
      const std::vector<int32_t> pages = head.AddGroups(pool_, precision);
      std::vector<CopyPages::Copy> copies;
      for (const int32_t page : pages) {
        copies.push_back({packed, pages_->view().Page(pages_->Place(precision, page))});
        packed += bytes;
      }
      MutexLock lock(&mutex_);
      CopyWhole(copies, bytes);
    }
    tasks.remove_prefix(count);
  }
}

void CudaBackend::MovePackedRow(SequenceRows& rows, int layer, int kv_head, int32_t from, int32_t to) {
  HeadRows& head = rows.head(layer, kv_head);
  const MovePackedRows::Move move{PlaceOf(head, from), PlaceOf(head, to)};
  TIDEPOOL_CHECK(move.from.precision == KvPrecision::kInt8 && move.to.precision == KvPrecision::kInt8);
  {
    MutexLock lock(&mutex_);
    fresh_.rows.clear();
    // Moves of one launch are in no order: none may touch a row of another.
    if (!written_[writing_].places.empty() || moved_places_.contains(KeyOf(move.from)) ||
        moved_places_.contains(KeyOf(move.to))) {
      FlushWrites();
    }
    packed_moves_.push_back(move);
    moved_places_.insert({KeyOf(move.from), KeyOf(move.to)});
  }
  head.MovePacked(from, to);
}

void CudaBackend::FillGroup(const RowGroup& group, const char* rows) {
  MutexLock lock(&mutex_);
  FlushWrites();
  const size_t row_bytes = layout_.row_bytes(), bytes = pool_.page_bytes(group.precision);
  const char* uploaded = uploads_.Upload(absl::MakeConstSpan(rows, kGroupTokens * row_bytes));
  std::vector<const uint16_t*> from;
  for (int i = 0; i < kGroupTokens; ++i) from.push_back(reinterpret_cast<const uint16_t*>(uploaded + i * row_bytes));
  const CopyPages::Copy copy{PackGroupsOf(group.precision, from, layout_.head_dim),
                             pages_->view().Page(pages_->Place(group.precision, group.page))};
  CopyWhole(absl::MakeConstSpan(&copy, 1), bytes);
}

void CudaBackend::Probabilities(const SequenceRows& rows, int layer, int kv_head,
                                absl::Span<const float* const> queries, absl::Span<const int32_t> visible, float* out) {
  const HeadRows& head = rows.head(layer, kv_head);
  const int head_dim = layout_.head_dim;
  const auto slots = static_cast<size_t>(head.slots());
  const auto count = static_cast<int32_t>(queries.size());
  std::vector<float> together(static_cast<size_t>(count) * head_dim);
  for (int32_t i = 0; i < count; ++i)
    std::copy_n(queries[i], head_dim, together.data() + static_cast<size_t>(i) * head_dim);
  std::vector<float> scores(count * slots);
  {
    MutexLock lock(&mutex_);
    FlushWrites();
    PageTables& tables = PageTables::Of(device_.get(), *pages_, rows);
    tables.Reserve();
    std::vector<UpdateEntries::Update> updates;
    ScoreJob job;
    job.head = tables.Refresh(layer, kv_head, updates);
    ApplyUpdates(updates);
    job.q = uploads_.Upload(absl::MakeConstSpan(together));
    job.out = job_scores_.Get<float>(scores.size());
    job.queries = count;
    LaunchScores(uploads_.Upload(absl::MakeConstSpan(&job, 1)), 1, job.head.pages);
    float* host = host_scores_.Get<float>(scores.size());
    device_->CopyToHost(host, job.out, scores.size() * sizeof(float));
    Wait();
    std::copy_n(host, scores.size(), scores.data());
  }
  for (int32_t i = 0; i < count; ++i) {
    float* to = out + static_cast<size_t>(i) * head.rows();
    for (int32_t r = 0; r < visible[i]; ++r) to[r] = scores[i * slots + head.order()[r]];
    const float sum = ExpAndSum(to, visible[i]);
    for (int32_t r = 0; r < visible[i]; ++r) to[r] /= sum;
    std::fill(to + visible[i], to + head.rows(), 0.0f);
  }
}

void CudaBackend::ApplyUpdates(const std::vector<UpdateEntries::Update>& updates) {
  if (updates.empty()) return;
  const auto count = static_cast<int32_t>(updates.size());
  device_->Launch<UpdateEntries>({CeilDiv(count, UpdateEntries::kThreads)},
                                 {uploads_.Upload(absl::MakeConstSpan(updates)), count});
}

}  // namespace tidepool::cuda
