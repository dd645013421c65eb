#include "worker/kv/product_index.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/container/fixed_array.h"
#include "base/check.h"
#include "base/limits.h"
#include "worker/kernels/cpu/attention.h"
#include "worker/kernels/cpu/product_scan.h"
#include "worker/kernels/cpu/recall_scan.h"

namespace tidepool {
namespace {

constexpr int32_t kMostSegmentBlocks = 64;
// Blocks that get tables of their own: enough to learn from, and so many that tables stay few beside codes.
int32_t LeastSegmentBlocks(int32_t coded_blocks) { return std::max(4, coded_blocks / 2); }
// Decoded keys are held no longer than this before the first tables are learnt.
constexpr int32_t kMostHeldBlocks = 8;

}  // namespace

ProductIndex::ProductIndex(const KvLayout& layout, ProductShape shape)
    : shape_(shape),
      block_bytes_(shape.CodeBytes(kBlockTokens)),
      heads_(static_cast<size_t>(layout.layers) * layout.kv_heads) {}

int32_t ProductIndex::HeldBlocks(const Head& at) const {
  return static_cast<int32_t>(at.held.size() / (static_cast<size_t>(kBlockTokens) * shape_.head_dim));
}

void ProductIndex::AddBlock(int head, absl::Span<const float> keys, bool prompt) {
  Head& at = heads_[head];
  const bool restored = CodedBlocks(at) < at.restored_blocks;
  // Whether a key was held or not must not change its code.
  std::vector<uint16_t> rounded(keys.size());
  FloatToHalf(keys.data(), static_cast<int64_t>(keys.size()), rounded.data());
  if (restored || (!prompt && !at.segments.empty() && at.held.empty())) {
    std::vector<float> coded(keys.size());
    HalfToFloat(rounded.data(), static_cast<int64_t>(keys.size()), coded.data());
    return Code(at, coded.data(), 1);
  }
  at.held.insert(at.held.end(), rounded.begin(), rounded.end());
}

void ProductIndex::Code(Head& at, const float* keys, int32_t blocks) const {
  for (int32_t i = 0; i < blocks; ++i) {
    const int32_t block = CodedBlocks(at);
    const auto after = std::upper_bound(at.segments.begin(), at.segments.end(), block,
                                        [](int32_t b, const Segment& segment) { return b < segment.first_block; });
    TIDEPOOL_CHECK(after != at.segments.begin());
    at.codes.resize(at.codes.size() + block_bytes_);
    EncodeProduct(shape_, (after - 1)->tables, keys + static_cast<size_t>(i) * kBlockTokens * shape_.head_dim,
                  kBlockTokens, at.codes.data() + at.codes.size() - block_bytes_);
  }
}

void ProductIndex::Learn(int head, absl::Span<const float> weight) {
  Head& at = heads_[head];
  const int32_t blocks = HeldBlocks(at);
  if (blocks == 0 || (at.segments.empty() && blocks < LeastSegmentBlocks(0))) return;
  const size_t block_keys = static_cast<size_t>(kBlockTokens) * shape_.head_dim;
  std::vector<float> keys(at.held.size());
  HalfToFloat(at.held.data(), static_cast<int64_t>(keys.size()), keys.data());
  const int32_t first = CodedBlocks(at);
  if (blocks >= LeastSegmentBlocks(first)) {
    const int32_t count = (blocks + kMostSegmentBlocks - 1) / kMostSegmentBlocks;
    for (int32_t i = 0; i < count; ++i) {
      const int32_t begin = i * blocks / count, end = (i + 1) * blocks / count;
      const auto part = absl::MakeConstSpan(keys).subspan(begin * block_keys, (end - begin) * block_keys);
      at.segments.push_back({first + begin, TrainProductTables(shape_, part, weight)});
    }
  }
  at.held = std::vector<uint16_t>();  // gives its memory back
  Code(at, keys.data(), blocks);
}

bool ProductIndex::overdue() const {
  // All heads are alike.
  return !heads_.empty() && heads_[0].segments.empty() && HeldBlocks(heads_[0]) >= kMostHeldBlocks;
}

void ProductIndex::Score(int head, absl::Span<const float* const> queries, int32_t blocks, float* const* scores) const {
  const Head& at = heads_[head];
  const int count = static_cast<int>(queries.size());
  const int32_t coded = std::min(CodedBlocks(at), blocks);
  const size_t table_size = static_cast<size_t>(shape_.groups) * shape_.centroids();
  absl::FixedArray<float, 1024> tables(count * table_size);
  absl::FixedArray<uint8_t, 1024> entry(shape_.bits == 4 ? count * table_size : 0);
  absl::FixedArray<float, 16> offset(count), step(count);
  absl::FixedArray<const float*, 16> table(count);
  absl::FixedArray<const uint8_t*, 16> entries(count);
  absl::FixedArray<float*, 16> out(count);
  for (size_t s = 0; s < at.segments.size() && at.segments[s].first_block < coded; ++s) {
    const ProductTables& of_segment = at.segments[s].tables;
    const int32_t first = at.segments[s].first_block;
    const int32_t end = s + 1 < at.segments.size() ? std::min(at.segments[s + 1].first_block, coded) : coded;
    for (int i = 0; i < count; ++i) {
      float* own = tables.data() + i * table_size;
      table[i] = own;
      if (shape_.bits == 4) {
        entries[i] = entry.data() + i * table_size;
        const RoundedScale scale = RoundedProductTable(
            {shape_.groups, shape_.width(), of_segment.channel.data(), of_segment.centroid.data(),
             of_segment.offset.data(), of_segment.scale.data(), queries[i], own, entry.data() + i * table_size});
        offset[i] = scale.offset;
        step[i] = scale.step;
      } else {
        ProductScoreTable(shape_, of_segment, queries[i], own);
      }
      out[i] = scores[i] + first * kBlockTokens;
    }
    ProductScanTask task;
    task.codes = at.codes.data() + first * block_bytes_;
    task.tiles = (end - first) * (kBlockTokens / kProductTileRows);
    task.groups = shape_.groups;
    task.bits = shape_.bits;
    task.queries = count;
    task.tables = table.data();
    task.entries = entries.data();
    task.offset = offset.data();
    task.step = step.data();
    task.scores = out.data();
    ScanProductCodes(task);
  }
  if (coded < blocks) {
    for (int i = 0; i < count; ++i) out[i] = scores[i] + coded * kBlockTokens;
    ScoreUncoded(head, queries, blocks, out.data());
  }
}

IndexCodes ProductIndex::Codes(int head) const {
  if (shape_.bits != 4 || shape_.width() != 4) return {};
  const Head& at = heads_[head];
  IndexCodes codes{.head = head, .heads = static_cast<int>(heads_.size()), .shape = shape_, .codes = at.codes};
  for (const Segment& segment : at.segments)
    codes.segments.push_back({segment.first_block * kBlockTokens, &segment.tables});
  codes.on_device = &on_device_;
  return codes;
}

void ProductIndex::ScoreUncoded(int head, absl::Span<const float* const> queries, int32_t blocks,
                                float* const* scores) const {
  const Head& at = heads_[head];
  const int32_t rows = std::max(0, blocks - CodedBlocks(at)) * kBlockTokens;
  DotHalves({at.held.data(), shape_.head_dim, rows, shape_.head_dim}, static_cast<int32_t>(queries.size()),
            queries.data(), scores);
}

int64_t ProductIndex::bytes() const {
  int64_t bytes = table_bytes();
  for (const Head& head : heads_) bytes += static_cast<int64_t>(head.codes.size());
  return bytes;
}

int64_t ProductIndex::table_bytes() const {
  size_t segments = 0;
  for (const Head& head : heads_) segments += head.segments.size();
  return static_cast<int64_t>(segments * shape_.TableBytes());
}

int64_t ProductIndex::held_bytes() const {
  size_t keys = 0;
  for (const Head& head : heads_) keys += head.held.size();
  return static_cast<int64_t>(keys * sizeof(uint16_t));
}

void ProductIndex::Save(ByteWriter& out) const {
  for (const Head& head : heads_) {
    out.Put<int32_t>(CodedBlocks(head));
    out.Put<int32_t>(static_cast<int32_t>(head.segments.size()));
    for (const Segment& segment : head.segments) {
      out.Put<int32_t>(segment.first_block);
      out.PutVector(segment.tables.channel);
      out.PutVector(segment.tables.centroid);
      out.PutVector(segment.tables.offset);
      out.PutVector(segment.tables.scale);
      out.PutVector(segment.tables.weight);
    }
  }
}

bool ProductIndex::Load(ByteReader& in) {
  const size_t head_dim = shape_.head_dim;
  for (Head& head : heads_) {
    head.restored_blocks = in.Get<int32_t>();
    const int32_t count = in.Get<int32_t>();
    if (!in.ok() || head.restored_blocks < 0 || count < 0 || (count == 0) != (head.restored_blocks == 0)) return false;
    for (int32_t i = 0; i < count; ++i) {
      Segment segment;
      segment.first_block = in.Get<int32_t>();
      ProductTables& tables = segment.tables;
      tables.channel = in.GetVector<uint8_t>();
      tables.centroid = in.GetVector<uint8_t>();
      tables.offset = in.GetVector<float>();
      tables.scale = in.GetVector<float>();
      tables.weight = in.GetVector<float>();
      const bool whole = in.ok() && tables.channel.size() == head_dim && tables.offset.size() == head_dim &&
                         tables.scale.size() == head_dim && tables.weight.size() == head_dim &&
                         tables.centroid.size() == head_dim * shape_.centroids();
      if (!whole || (i == 0 ? segment.first_block != 0 : segment.first_block <= head.segments.back().first_block)) {
        return false;
      }
      for (uint8_t channel : tables.channel) {
        if (channel >= head_dim) return false;
      }
      head.segments.push_back(std::move(segment));
    }
  }
  return true;
}

}  // namespace tidepool
