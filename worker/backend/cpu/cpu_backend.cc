#include "worker/backend/cpu/cpu_backend.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <utility>

#include "absl/container/fixed_array.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "worker/backend/cpu/pack_rows.h"
#include "worker/kernels/cpu/attention.h"
#include "worker/kernels/cpu/elementwise.h"
#include "worker/kernels/cpu/leaving_row.h"

namespace tidepool {
namespace {

int64_t TotalTokens(absl::Span<const StepSlice> slices) {
  int64_t tokens = 0;
  for (const StepSlice& slice : slices) tokens += static_cast<int64_t>(slice.tokens.size());
  return tokens;
}

std::vector<PackedPage> PackedLayouts(int head_dim) {
  std::vector<PackedPage> layouts;
  for (int i = 0; i < kKvPrecisions; ++i) layouts.emplace_back(static_cast<KvPrecision>(i), head_dim);
  return layouts;
}

constexpr size_t kStackSlots = 2048;  // of a head: room on the stack, else on the heap
using PageAddresses = absl::FixedArray<const void*, kStackSlots / kPageSlots>;

// Of a head without packed rows; null: no row lies there.
PageAddresses AddressesOf(const PageMemory& memory, const HeadRows& head) {
  PageAddresses addresses(head.pages().size());
  for (size_t i = 0; i < addresses.size(); ++i) {
    const int32_t page = head.pages()[i].page;
    addresses[i] = page < 0 ? nullptr : memory.page(page);
  }
  return addresses;
}

KeysTask KeysOf(const HeadRows& head, const PageAddresses& pages, int head_dim, const float* vector) {
  return {.pages = pages.data(),
          .slots = head.slots(),
          .head_dim = head_dim,
          .vector = vector,
          .length = LengthOf(vector, head_dim)};
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> CreateCpuBackend(std::shared_ptr<const Model> model,
                                                          const BackendOptions& options) {
  if (options.threads < 1 || options.threads > 256) {
    return absl::InvalidArgumentError(absl::StrCat("threads: ", options.threads, " is not in 1 to 256"));
  }
  TP_RETURN_IF_ERROR(CheckShape(model->config()));
  const KvLayout layout = LayoutOf(*model, options.kv_type);
  TP_ASSIGN_OR_RETURN(const int32_t pages, PagesOf(options, layout, PageMemory::BytesOf(layout)[0]));
  auto memory = PageMemory::Create(layout, pages);
  if (!memory.ok()) return memory.status();
  return std::unique_ptr<Backend>(new CpuBackend(std::move(model), options, layout, pages, *std::move(memory)));
}

CpuBackend::CpuBackend(std::shared_ptr<const Model> model, const BackendOptions& options, KvLayout layout,
                       int32_t pages, std::unique_ptr<PageMemory> memory)
    : model_(std::move(model)),
      config_(model_->config()),
      rope_{config_.rope_frequencies, config_.rope_neox, config_.rope_magnitude},
      layout_(std::move(layout)),
      packed_layouts_(PackedLayouts(layout_.head_dim)),
      team_(options.threads),
      weights_(*model_, options.f32_weights, team_),
      memory_(std::move(memory)),
      pool_(pages, PageMemory::BytesOf(layout_)),
      attention_(layout_, config_.heads, *memory_, packed_layouts_, team_) {
  model_->ReleasePages();
  pool_.set_release(
      [this](KvPrecision precision, absl::Span<const int32_t> freed) { memory_->Release(precision, freed); });
}

void CpuBackend::ParallelFor(int64_t count, absl::FunctionRef<void(int64_t)> body) {
  team_.ForEach(count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i);
  });
}

void CpuBackend::Embed(absl::Span<const StepSlice> slices, float* x) {
  std::vector<int32_t> tokens;
  for (const StepSlice& slice : slices) tokens.insert(tokens.end(), slice.tokens.begin(), slice.tokens.end());
  team_.ForEach(static_cast<int64_t>(tokens.size()), 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) weights_.Embed(tokens[i], x + i * config_.width);
  });
}

void CpuBackend::RotateAndStore(absl::Span<const StepSlice> slices, int layer) {
  const CpuLayerWeights& weights = weights_.layers[layer];
  const int head_dim = config_.head_dim, pairs = config_.rope_dims / 2;
  const int64_t stride = int64_t{config_.kv_heads} * head_dim;
  float* q = q_.Floats(0);
  float* k = k_.Floats(0);
  const float* v = v_.Floats(0);
  const float* cosine = cosine_.Floats(0);
  const float* sine = sine_.Floats(0);
  auto rotate = [&](float* heads, int count, const std::vector<float>& norm, int64_t token) {
    for (int h = 0; h < count; ++h) {
      float* head = heads + (token * count + h) * head_dim;
      if (!norm.empty()) RmsNorm(head, norm.data(), config_.rms_epsilon, head_dim, head);
      RopeRotate(head, cosine + token * pairs, sine + token * pairs, pairs, config_.rope_neox);
    }
  };
  // Of a slice whose tokens are those from `first` on, the rows of tokens [begin, end).
  auto store = [&](const StepSlice& slice, int64_t first, int64_t begin, int64_t end) {
    alignas(64) char row[2 * kMaxHeadDim * sizeof(float)];
    const auto count = static_cast<int64_t>(slice.tokens.size());
    for (int kv_head = 0; kv_head < config_.kv_heads; ++kv_head) {
      const HeadRows& head = slice.rows->head(layer, kv_head);
      for (int64_t token = begin; token < end; ++token) {
        const float* key = k + token * stride + int64_t{kv_head} * head_dim;
        const float* value = v + token * stride + int64_t{kv_head} * head_dim;
        if (layout_.type == KvType::kF16) {
          uint16_t* halves = reinterpret_cast<uint16_t*>(row);
          FloatToHalf(key, head_dim, halves);
          FloatToHalf(value, head_dim, halves + head_dim);
        } else {
          std::memcpy(row, key, head_dim * sizeof(float));
          std::memcpy(row + head_dim * sizeof(float), value, head_dim * sizeof(float));
        }
        const int32_t slot = head.order()[head.rows() - count + token - first];
        memory_->Write(head.pages()[slot / kPageSlots].page, slot % kPageSlots, row);
        if (slice.row_copies != nullptr) {
          std::memcpy(slice.row_copies + (int64_t{layer} * config_.kv_heads + kv_head) * slice.copy_stride, row,
                      layout_.row_bytes());
        }
      }
    }
  };
  const int64_t tokens = TotalTokens(slices);
  // A key's numbers lie on many lines: the tokens of a few sequences are worth sharing, those of a prompt lie together.
  constexpr int64_t kFew = 32;
  team_.ForEach(tokens, tokens <= kFew ? 2 : 16, [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; ++token) {
      rotate(q, config_.heads, weights.q_norm, token);
      rotate(k, config_.kv_heads, weights.k_norm, token);
    }
    int64_t first = 0;
    for (const StepSlice& slice : slices) {
      const int64_t last = first + static_cast<int64_t>(slice.tokens.size());
      store(slice, first, std::max(begin, first), std::min(end, last));
      first = last;
    }
  });
}

void CpuBackend::Step(absl::Span<const StepSlice> slices, StepHook* hook) {
  const int64_t tokens = TotalTokens(slices);
  if (tokens == 0) return;
  const int64_t width = config_.width, q_width = int64_t{config_.heads} * config_.head_dim,
                kv_width = int64_t{config_.kv_heads} * config_.head_dim, ffn = config_.ffn_width;
  const int pairs = config_.rope_dims / 2;
  float* x = x_.Floats(tokens * width);
  float* normed = normed_.Floats(tokens * std::max(width, q_width));
  float* q = q_.Floats(tokens * q_width);
  float* k = k_.Floats(tokens * kv_width);
  float* v = v_.Floats(tokens * kv_width);
  float* attended = attended_.Floats(tokens * q_width);
  float* gate = gate_.Floats(tokens * ffn);
  float* up = up_.Floats(tokens * ffn);
  float* cosine = cosine_.Floats(tokens * pairs);
  float* sine = sine_.Floats(tokens * pairs);

  Embed(slices, x);
  std::vector<SliceQueries> queries;
  int64_t first = 0;
  for (const StepSlice& slice : slices) {
    queries.push_back({q + first * q_width, q_width});
    for (size_t i = 0; i < slice.tokens.size(); ++i, ++first) {
      RopeTable(config_.rope_frequencies.data(), pairs, config_.rope_magnitude,
                slice.first_position + static_cast<int64_t>(i), cosine + first * pairs, sine + first * pairs);
    }
  }

  // Rows are finished by the thread that rounds them, while they are near: x += what the last product put into
  // `normed`, where there is one, and its norm.
  auto set_normed = [&](const std::vector<float>& weight, bool add, bool quantized) {
    activations_.Set(normed, tokens, width, quantized, team_, [&](int64_t begin, int64_t end) {
      if (add) AddInPlace(x + begin * width, normed + begin * width, (end - begin) * width);
      for (int64_t i = begin; i < end; ++i) {
        RmsNorm(x + i * width, weight.data(), config_.rms_epsilon, width, normed + i * width);
      }
    });
  };
  auto bias = [](const std::vector<float>& values) { return values.empty() ? nullptr : values.data(); };

  attention_.Begin(slices, hook);
  for (int layer = 0; layer < config_.layers; ++layer) {
    const CpuLayerWeights& w = weights_.layers[layer];
    set_normed(w.attention_norm, /*add=*/layer > 0, !w.q.is_float() || !w.k.is_float() || !w.v.is_float());
    const MatMulTask qkv[] = {
        {&w.q, bias(w.q_bias), q, q_width}, {&w.k, bias(w.k_bias), k, kv_width}, {&w.v, bias(w.v_bias), v, kv_width}};
    MatMul(qkv, activations_, team_);
    RotateAndStore(slices, layer);
    if (hook != nullptr) hook->BeforeAttention(layer, queries);
    attention_.Run(layer, q, attended);
    if (hook != nullptr) hook->AfterAttention(layer);
    activations_.Set(attended, tokens, q_width, !w.output.is_float(), team_);
    const MatMulTask output[] = {{&w.output, nullptr, normed, width}};
    MatMul(output, activations_, team_);
    set_normed(w.ffn_norm, /*add=*/true, !w.gate.is_float() || !w.up.is_float());
    const MatMulTask gate_up[] = {{&w.gate, nullptr, gate, ffn}, {&w.up, nullptr, up, ffn}};
    MatMul(gate_up, activations_, team_);
    activations_.Set(gate, tokens, ffn, !w.down.is_float(), team_, [&](int64_t begin, int64_t end) {
      SiluMultiply(gate + begin * ffn, up + begin * ffn, (end - begin) * ffn);
    });
    const MatMulTask down[] = {{&w.down, nullptr, normed, width}};
    MatMul(down, activations_, team_);
  }
  team_.ForEach(tokens, 32, [&](int64_t begin, int64_t end) {
    AddInPlace(x + begin * width, normed + begin * width, (end - begin) * width);
  });
  Logits(slices);
  attention_.Finish();
}

void CpuBackend::Logits(absl::Span<const StepSlice> slices) {
  const int64_t width = config_.width, vocabulary = config_.vocabulary;
  int64_t wanted = 0;
  for (const StepSlice& slice : slices) wanted += slice.logits_rows;
  if (wanted == 0) return;
  const float* x = x_.Floats(0);
  float* normed = normed_.Floats(0);  // wanted <= tokens
  // Where they are wanted one after the other, they are computed there.
  float* wanted_at = nullptr;
  bool together = true;
  int64_t end_of_slice = 0, row = 0;
  for (const StepSlice& slice : slices) {
    if (slice.logits_rows > 0) {
      if (wanted_at == nullptr) wanted_at = slice.logits;
      together = together && slice.logits == wanted_at + row * vocabulary;
    }
    end_of_slice += static_cast<int64_t>(slice.tokens.size());
    for (int64_t i = end_of_slice - slice.logits_rows; i < end_of_slice; ++i, ++row) {
      RmsNorm(x + i * width, weights_.output_norm.data(), config_.rms_epsilon, width, normed + row * width);
    }
  }
  float* logits = together ? wanted_at : logits_.Floats(wanted * vocabulary);
  activations_.Set(normed, wanted, width, !weights_.output.is_float(), team_);
  const MatMulTask task[] = {{&weights_.output, nullptr, logits, vocabulary}};
  MatMul(task, activations_, team_);
  if (together) return;
  for (const StepSlice& slice : slices) {
    std::memcpy(slice.logits, logits, slice.logits_rows * vocabulary * sizeof(float));
    logits += slice.logits_rows * vocabulary;
  }
}

void CpuBackend::ReadRows(const SequenceRows& rows, int layer, int kv_head, absl::Span<const int32_t> slots,
                          char* out) {
  const HeadRows& head = rows.head(layer, kv_head);
  std::vector<float> expanded(head.groups().empty() ? 0 : 2 * layout_.head_dim);
  for (int32_t slot : slots) {
    const SlotPage& page = head.pages()[slot / kPageSlots];
    if (page.precision == KvPrecision::kF16) {
      memory_->Read(page.page, slot % kPageSlots, out);
    } else {
      UnpackRow(page.precision, layout_.head_dim, memory_->page(page.page, page.precision),
                page.half * kPageSlots + slot % kPageSlots, expanded.data(), expanded.data() + layout_.head_dim);
      if (layout_.type == KvType::kF16) {
        FloatToHalf(expanded.data(), 2 * layout_.head_dim, reinterpret_cast<uint16_t*>(out));
      } else {
        std::memcpy(out, expanded.data(), layout_.row_bytes());
      }
    }
    out += layout_.row_bytes();
  }
}

bool CpuBackend::KeyScores(const SequenceRows& rows, int layer, int kv_head, absl::Span<const float* const> queries,
                           absl::Span<const int32_t> slots, float* out) {
  const HeadRows& head = rows.head(layer, kv_head);
  absl::FixedArray<const void*, 256> pages(head.pages().size(), nullptr);
  for (int32_t slot : slots) {
    const SlotPage& page = head.pages()[slot / kPageSlots];
    TIDEPOOL_CHECK(page.precision == KvPrecision::kF16);
    pages[slot / kPageSlots] = memory_->page(page.page);
  }
  AttentionTask task;
  task.pages = pages.data();
  task.slots = head.slots();
  task.head_dim = layout_.head_dim;
  task.scale = 1;
  task.queries = static_cast<int32_t>(queries.size());
  task.q = queries.data();
  const auto stride = static_cast<size_t>(SlotFloats(task.slots));
  const size_t floats = queries.size() * stride;
  const auto scores = std::make_unique_for_overwrite<float[]>(floats + PartScratchFloats(task.queries, task.head_dim));
  ScorePages(layout_.type, task, 0, static_cast<int32_t>(pages.size()), scores.get(), scores.get() + floats);
  for (size_t q = 0; q < queries.size(); ++q) {
    for (int32_t slot : slots) *out++ = scores[q * stride + slot];
  }
  return true;
}

bool CpuBackend::KeyCosines(const SequenceRows& rows, int layer, int kv_head, const float* vector,
                            absl::Span<const int32_t> slots, float* out) {
  const HeadRows& head = rows.head(layer, kv_head);
  if (!head.groups().empty()) return false;
  const PageAddresses pages = AddressesOf(*memory_, head);
  absl::FixedArray<float, kStackSlots> cosines(head.slots());
  CosinesWithKeys(layout_.type, KeysOf(head, pages, layout_.head_dim, vector), cosines.data());
  for (size_t i = 0; i < slots.size(); ++i) out[i] = cosines[slots[i]];
  return true;
}

std::optional<Backend::Alike> CpuBackend::MostLike(const SequenceRows& rows, int layer, int kv_head, int32_t slot,
                                                   absl::Span<const int32_t> going) {
  const HeadRows& head = rows.head(layer, kv_head);
  if (!head.groups().empty()) return std::nullopt;
  float row[2 * kMaxHeadDim];
  ReadFloats(head, slot, row);
  const PageAddresses pages = AddressesOf(*memory_, head);
  absl::FixedArray<float, kStackSlots> cosines(head.slots());
  CosinesWithKeys(layout_.type, KeysOf(head, pages, layout_.head_dim, row), cosines.data());
  // The positions are far.
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  for (const int32_t gone : going) cosines[gone] = kNone;
  for (const int32_t free : head.free_slots()) cosines[free] = kNone;
  const int32_t like = LargestCosine(cosines.data(), head.slots(), head.positions().data());
  if (like < 0) return std::nullopt;
  return Alike{.slot = like, .cosine = cosines[like]};
}

void CpuBackend::ReadFloats(const HeadRows& head, int32_t slot, float* row) const {
  TIDEPOOL_CHECK(!head.is_packed(slot));
  memory_->ReadFloats(head.pages()[slot / kPageSlots].page, slot % kPageSlots, row);
}

void CpuBackend::MixRows(SequenceRows& rows, int layer, absl::Span<const MixTask> tasks) {
  const int elements = 2 * layout_.head_dim;
  float row[2 * kMaxHeadDim], source[2 * kMaxHeadDim];
  double sums[2 * kMaxHeadDim];
  alignas(64) char raw[2 * kMaxHeadDim * sizeof(float)];
  for (const MixTask& task : tasks) {
    const HeadRows& head = rows.head(layer, task.kv_head);
    ReadFloats(head, task.from, row);
    for (int i = 0; i < elements; ++i) sums[i] = task.own * row[i];
    for (const auto& [slot, weight] : task.sources) {
      ReadFloats(head, slot, source);
      for (int i = 0; i < elements; ++i) sums[i] += weight * source[i];
    }
    for (int i = 0; i < elements; ++i) row[i] = static_cast<float>(sums[i] / task.divisor);
    if (layout_.type == KvType::kF16) {
      FloatToHalf(row, elements, reinterpret_cast<uint16_t*>(raw));
    } else {
      std::memcpy(raw, row, layout_.row_bytes());
    }
    WriteRow(rows, layer, task.kv_head, task.to, raw);
  }
}

void CpuBackend::WriteRow(SequenceRows& rows, int layer, int kv_head, int32_t slot, const char* row) {
  const SlotPage& page = rows.head(layer, kv_head).pages()[slot / kPageSlots];
  TIDEPOOL_CHECK(page.precision == KvPrecision::kF16);
  memory_->Write(page.page, slot % kPageSlots, row);
}

void CpuBackend::PutInOrder(const HeadRows& head) {
  std::vector<int32_t> pages;  // the plain ones
  for (const SlotPage& page : head.pages()) {
    if (page.precision == KvPrecision::kF16) pages.push_back(page.page);
  }
  std::vector<PageMemory::Place> places;  // of the plain rows by ascending position
  size_t in_place = 0;                    // of the first rows
  for (int32_t slot : head.order()) {
    if (head.is_packed(slot)) continue;
    const PageMemory::Place place = {head.pages()[slot / kPageSlots].page, slot % kPageSlots};
    const bool there = place.page == pages[places.size() / kPageSlots] &&
                       place.slot_in_page == static_cast<int32_t>(places.size() % kPageSlots);
    if (there && in_place == places.size()) ++in_place;
    places.push_back(place);
  }
  if (in_place == places.size()) return;
  const size_t first = in_place / kPageSlots, end = (places.size() + kPageSlots - 1) / kPageSlots;
  memory_->Move(absl::MakeConstSpan(places).subspan(first * kPageSlots),
                absl::MakeConstSpan(pages).subspan(first, end - first));
}

void CpuBackend::RepackAll(SequenceRows& rows, absl::Span<const HeadAt> heads) {
  ParallelFor(static_cast<int64_t>(heads.size()), [&](int64_t i) {
    const HeadRows& head = rows.head(heads[i].layer, heads[i].kv_head);
    if (!head.in_order()) PutInOrder(head);
  });
  for (const HeadAt& head : heads) rows.head(head.layer, head.kv_head).Renumber(pool_);
}

void CpuBackend::Split(const char* rows, int count, float* keys, float* values) const {
  const int head_dim = layout_.head_dim;
  for (int i = 0; i < count; ++i, rows += layout_.row_bytes(), keys += head_dim, values += head_dim) {
    if (layout_.type == KvType::kF16) {
      HalfToFloat(reinterpret_cast<const uint16_t*>(rows), head_dim, keys);
      HalfToFloat(reinterpret_cast<const uint16_t*>(rows) + head_dim, head_dim, values);
    } else {
      std::memcpy(keys, rows, head_dim * sizeof(float));
      std::memcpy(values, rows + head_dim * sizeof(float), head_dim * sizeof(float));
    }
  }
}

void CpuBackend::Pack(SequenceRows& rows, KvPrecision precision, absl::Span<const PackTask> tasks) {
  // All groups are packed into host memory first: their rows' pages are freed before new ones are taken.
  struct Group {
    const PackTask* task;
    size_t first;  // of task->slots
  };
  std::vector<Group> groups;
  for (const PackTask& task : tasks) {
    for (size_t first = 0; first < task.slots.size(); first += kGroupTokens) groups.push_back({&task, first});
  }
  const size_t bytes = pool_.page_bytes(precision), elements = static_cast<size_t>(kGroupTokens) * layout_.head_dim;
  std::vector<char> packed(groups.size() * bytes);
  ParallelFor(static_cast<int64_t>(groups.size()), [&](int64_t g) {
    std::vector<char> raw(kGroupTokens * layout_.row_bytes());
    std::vector<float> floats(2 * elements);
    const PackTask& task = *groups[g].task;
    ReadRows(rows, task.layer, task.kv_head, absl::MakeConstSpan(task.slots).subspan(groups[g].first, kGroupTokens),
             raw.data());
    Split(raw.data(), kGroupTokens, floats.data(), floats.data() + elements);
    PackRows(precision, layout_.head_dim, floats.data(), floats.data() + elements, packed.data() + g * bytes);
  });
  std::vector<HeadAt> heads;
  for (const PackTask& task : tasks) {
    rows.head(task.layer, task.kv_head).TakeForGroups(task.slots);
    heads.push_back({task.layer, task.kv_head});
  }
  RepackAll(rows, heads);
  size_t next = 0;
  for (const PackTask& task : tasks) {
    for (const int32_t page : rows.head(task.layer, task.kv_head).AddGroups(pool_, precision)) {
      std::memcpy(memory_->page(page, precision), packed.data() + next++ * bytes, bytes);
    }
  }
}

void CpuBackend::MovePackedRow(SequenceRows& rows, int layer, int kv_head, int32_t from, int32_t to) {
  HeadRows& head = rows.head(layer, kv_head);
  auto page = [&](int32_t slot) {
    const SlotPage& of_slot = head.pages()[slot / kPageSlots];
    TIDEPOOL_CHECK(of_slot.precision == KvPrecision::kInt8);
    return memory_->page(of_slot.page, KvPrecision::kInt8);
  };
  auto token = [&](int32_t slot) { return head.pages()[slot / kPageSlots].half * kPageSlots + slot % kPageSlots; };
  CopyInt8Row(layout_.head_dim, page(from), token(from), page(to), token(to));
  head.MovePacked(from, to);
}

void CpuBackend::FillGroup(const RowGroup& group, const char* rows) {
  const size_t elements = static_cast<size_t>(kGroupTokens) * layout_.head_dim;
  std::vector<float> floats(2 * elements);
  Split(rows, kGroupTokens, floats.data(), floats.data() + elements);
  PackRows(group.precision, layout_.head_dim, floats.data(), floats.data() + elements,
           memory_->page(group.page, group.precision));
}

void CpuBackend::Probabilities(const SequenceRows& rows, int layer, int kv_head, absl::Span<const float* const> queries,
                               absl::Span<const int32_t> visible, float* out) {
  const HeadRows& head = rows.head(layer, kv_head);
  HeadPages pages;
  pages.Find(*memory_, packed_layouts_, head);
  FloatBuffer scratch;
  // Keys are converted once for those that go together; what they leave stays near.
  constexpr size_t kLeast = 16, kMost = 48, kScores = 1 << 16;
  const size_t at_once = std::clamp(kScores / std::max<size_t>(head.rows(), 1), kLeast, kMost);
  for (size_t first = 0; first < queries.size(); first += at_once) {
    AttentionTask task;
    pages.SetIn(head, task);
    task.head_dim = config_.head_dim;
    task.scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim));
    task.queries = static_cast<int32_t>(std::min(at_once, queries.size() - first));
    task.q = queries.data() + first;
    task.visible = visible.data() + first;
    task.probabilities = out + first * head.rows();
    task.probability_stride = head.rows();
    Attend(layout_.type, task, scratch.Floats(ScratchOf(task).end));
  }
}

}  // namespace tidepool
