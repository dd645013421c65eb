#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <numeric>
#include <random>

#include "tests/worker/kernels/cuda/device_fixture.h"
#include "tests/worker/kernels/cuda/packed_image.h"
#include "worker/kernels/cuda/attend_body.h"
#include "worker/kernels/cuda/move_rows_body.h"
#include "worker/kernels/cuda/prefill_body.h"
#include "worker/kernels/cuda/rotate_store_body.h"
#include "worker/kernels/cuda/score_rows_body.h"

namespace tidepool::cuda {
namespace {

struct Shape {
  int head_dim, kv_heads, group, slices, most_pages;
  KvPrecision precision = KvPrecision::kF16;  // of every fourth pair of pages
};

std::ostream& operator<<(std::ostream& out, const Shape& s) {
  return out << s.head_dim << "x" << s.kv_heads << "x" << s.group << ", " << s.slices << " slices, " << s.most_pages
             << " pages, precision " << static_cast<int>(s.precision);
}

// Ragged heads over random pages, some of them packed; free slots and pages hold NaN.
class AttendTest : public DeviceTest, public testing::WithParamInterface<Shape> {
 protected:
  AttendTest() {
    const Shape& s = GetParam();
    std::vector<uint32_t> numbers(static_cast<size_t>(s.slices) * s.kv_heads * s.most_pages + 3);
    std::iota(numbers.begin(), numbers.end(), 0);
    std::shuffle(numbers.begin(), numbers.end(), random_);
    rows_.assign(numbers.size() * kSlotsOfPage * 2 * s.head_dim, 0x7e00);
    memory_.head_dim = s.head_dim;
    for (int i = 0; i < s.slices * s.kv_heads; ++i) {
      const int pages = i == 0 ? s.most_pages : 1 + static_cast<int>(random_() % s.most_pages);
      std::vector<PageEntry> entries;
      while (static_cast<int>(entries.size()) < pages) {
        const size_t p = entries.size();
        if (s.precision != KvPrecision::kF16 && p % 4 == 1 && static_cast<int>(p) + 2 <= pages) {
          AddGroup(entries);
          continue;
        }
        // A slot page takes 64 * head_dim bytes.
        PageEntry entry{.place = numbers.back() * s.head_dim, .valid = static_cast<uint16_t>(random_())};
        numbers.pop_back();
        if (p % 5 == 3) entry = {.place = ~0u};  // freed
        if (p == 0) entry.valid |= 4;            // somebody is there
        for (int slot = 0; slot < kSlotsOfPage; ++slot) {
          if ((entry.valid >> slot & 1) == 0) continue;
          for (int c = 0; c < s.head_dim; ++c) {
            At(entry.place, slot, c) = FloatToHalf(Normal());
            At(entry.place, slot + kSlotsOfPage, c) = FloatToHalf(Normal());
          }
        }
        entries.push_back(entry);
      }
      entries_.push_back(entries);
    }
    memory_.base = reinterpret_cast<char*>(Upload(rows_));
    for (const auto& entries : entries_) heads_.push_back({Upload(entries), static_cast<int32_t>(entries.size()), 0});
    // The slices' queries lie in rows of q, backwards.
    for (int i = 0; i < s.slices; ++i) q_rows_.push_back(s.slices - 1 - i);
    q_.resize(static_cast<size_t>(s.slices) * s.kv_heads * s.group * s.head_dim);
    for (float& x : q_) x = 2 * Normal();
  }

  // Rows of K, then of V.
  uint16_t& At(uint32_t place, int row, int channel) {
    return rows_[(size_t{place} * kPlaceBytes) / sizeof(uint16_t) + row * GetParam().head_dim + channel];
  }
  // A packed page behind the others, with holes, as the cpu packs it.
  void AddGroup(std::vector<PageEntry>& entries) {
    const Shape& s = GetParam();
    const auto place = static_cast<uint32_t>(rows_.size() * sizeof(uint16_t) / kPlaceBytes);
    const std::vector<float> keys = RandomHalves(kGroupTokens * s.head_dim),
                             values = RandomHalves(kGroupTokens * s.head_dim);
    std::vector<char> page = test::PackedOnDevice(s.precision, s.head_dim, keys, values);
    std::vector<float>& expanded = groups_[place];
    expanded = test::Expanded(s.precision, s.head_dim, keys, values);
    for (uint8_t half = 0; half < 2; ++half) {
      const auto valid = static_cast<uint16_t>(random_());
      entries.push_back({.place = place, .valid = valid, .precision = s.precision, .half = half});
      for (int slot = 0; slot < kSlotsOfPage; ++slot) {
        if ((valid >> slot & 1) == 0) test::PoisonRow(s.precision, s.head_dim, half * kSlotsOfPage + slot, page.data());
      }
    }
    rows_.resize(rows_.size() + page.size() / sizeof(uint16_t));
    std::memcpy(reinterpret_cast<char*>(rows_.data()) + size_t{place} * kPlaceBytes, page.data(), page.size());
  }
  std::vector<float> RandomHalves(int count) {
    std::vector<float> x(count);
    for (float& of : x) of = HalfToFloat(FloatToHalf(Normal()));
    return x;
  }
  float Row(const PageEntry& entry, bool value, int slot, int channel) {
    const int head_dim = GetParam().head_dim;
    if (entry.precision == KvPrecision::kF16) {
      return HalfToFloat(At(entry.place, (value ? kSlotsOfPage : 0) + slot, channel));
    }
    const float x = groups_.at(entry.place)[((entry.half * kSlotsOfPage + slot) * 2 + value) * head_dim + channel];
    return expand_to_halves_ ? HalfToFloat(FloatToHalf(x)) : x;
  }
  float Key(const PageEntry& entry, int slot, int channel) { return Row(entry, false, slot, channel); }
  float Value(const PageEntry& entry, int slot, int channel) { return Row(entry, true, slot, channel); }
  float Normal() { return normal_(random_); }
  const float* Query(int slice, int head) const {
    const Shape& s = GetParam();
    return q_.data() + (static_cast<size_t>(q_rows_[slice]) * s.kv_heads * s.group + head) * s.head_dim;
  }
  // The first query is the key of its head's last row: no other score is near that one's.
  void AskForTheLastRow(float size) {
    auto last = entries_[0].rbegin();
    while (last->valid == 0) ++last;
    const int slot = std::bit_width(last->valid) - 1;
    float* q = q_.data() + (Query(0, 0) - q_.data());
    for (int c = 0; c < GetParam().head_dim; ++c) q[c] = size * Key(*last, slot, c);
  }
  // Scores by slot, NaN in free ones.
  std::vector<double> Scores(int slice, int head) {
    const Shape& s = GetParam();
    std::vector<double> scores;
    for (const PageEntry& entry : entries_[slice * s.kv_heads + head / s.group]) {
      for (int slot = 0; slot < kSlotsOfPage; ++slot) {
        double dot = std::nan("");
        if ((entry.valid >> slot & 1) != 0) {
          dot = 0;
          for (int c = 0; c < s.head_dim; ++c) dot += double{Query(slice, head)[c]} * Key(entry, slot, c);
        }
        scores.push_back(dot / std::sqrt(s.head_dim));
      }
    }
    return scores;
  }
  static std::vector<double> Softmax(std::vector<double> scores, double* log_sum) {
    double maximum = -1e300, sum = 0;
    for (double x : scores) maximum = std::isnan(x) ? maximum : std::max(maximum, x);
    for (double& x : scores) x = std::isnan(x) ? 0 : std::exp(x - maximum);
    for (double x : scores) sum += x;
    for (double& x : scores) x /= sum;
    *log_sum = (maximum + std::log(sum)) / std::log(2.0);
    return scores;
  }
  AttendArgs Args(int splits) {
    const Shape& s = GetParam();
    AttendArgs args;
    args.memory = memory_;
    args.heads = Upload(heads_);
    args.rows = Upload(q_rows_);
    args.q = Upload(q_);
    args.query_heads = s.kv_heads * s.group;
    args.kv_heads = s.kv_heads;
    args.scale = 1 / std::sqrt(static_cast<float>(s.head_dim));
    args.splits = splits;
    const size_t partials = static_cast<size_t>(s.slices) * args.query_heads * splits;
    args.part_out = Make<float>(partials * s.head_dim);
    args.part_maximum = Make<float>(partials);
    args.part_sum = Make<float>(partials);
    return args;
  }
  template <int kLanes, int kQueries>
  void Attend(const AttendArgs& args) {
    const Shape& s = GetParam();
    const Grid grid{args.splits, s.kv_heads * CeilDiv(s.group, kQueries), s.slices};
    if (s.precision == KvPrecision::kF16) return device_->Launch<AttendSplit<kLanes, kQueries>>(grid, args);
    device_->Launch<AttendPacked<kLanes, kQueries>>(grid, args);
  }
  template <int kQueries>
  void AttendAnyDim(const AttendArgs& args) {
    const int dim = GetParam().head_dim;
    if (dim <= 16) return Attend<2, kQueries>(args);
    if (dim <= 32) return Attend<4, kQueries>(args);
    if (dim <= 64) return Attend<8, kQueries>(args);
    if (dim <= 128) return Attend<16, kQueries>(args);
    Attend<32, kQueries>(args);
  }
  void AttendAny(const AttendArgs& args) {
    const int group = GetParam().group;
    if (group == 1) return AttendAnyDim<1>(args);
    if (group == 2) return AttendAnyDim<2>(args);
    if (group <= 4) return AttendAnyDim<4>(args);
    AttendAnyDim<8>(args);
  }
  template <int kLanes>
  void Score(const ScoreJob* jobs, int count) {
    const Shape& s = GetParam();
    device_->Launch<ScoreRows<kLanes>>({CeilDiv(s.most_pages, ScoreRows<kLanes>::kThreads / 32), count},
                                       {memory_, jobs, 1 / std::sqrt(static_cast<float>(s.head_dim))});
  }

  template <int kLanes>
  void Prefill(const PrefillArgs& args, int kv_head, float* sums) {
    const Shape& s = GetParam();
    using Kernel = FlashPrefill<kLanes>;
    const Grid grid{CeilDiv(s.group * CeilDiv(args.tokens, kTileTokens), Kernel::kWarps), s.kv_heads};
    if (s.precision == KvPrecision::kF16) {
      device_->Launch<Kernel>(grid, args);
    } else {
      device_->Launch<FlashPacked<kLanes>>(grid, args);
    }
    device_->Launch<FlashColumnSums<kLanes>>({heads_[kv_head].pages, s.group}, {args, kv_head, sums});
  }

  std::mt19937 random_{7};
  std::normal_distribution<float> normal_;
  PageMemoryView memory_;
  std::vector<uint16_t> rows_;
  std::map<uint32_t, std::vector<float>> groups_;  // by place: [kGroupTokens][K, V][head_dim]
  bool expand_to_halves_ = false;
  std::vector<std::vector<PageEntry>> entries_;  // [slices][kv_heads]
  std::vector<HeadPages> heads_;
  std::vector<int32_t> q_rows_;
  std::vector<float> q_;
};

TEST_P(AttendTest, EqualsSoftmaxOverTheResidentRows) {
  const Shape& s = GetParam();
  // More splits than a warp has lanes, most of them empty; then scores so far apart that only differences to the
  // largest can be raised to a power.
  for (const auto& [splits, spread] : {std::pair{1, 1.0f}, {2, 1.0f}, {7, 1.0f}, {40, 1.0f}, {40, 100.0f}}) {
    for (float& x : q_) x *= spread;
    if (spread != 1) AskForTheLastRow(spread);
    const AttendArgs args = Args(splits);
    AttendAny(args);
    float* out = Make<float>(q_.size());
    float* log_sum = Make<float>(static_cast<size_t>(s.slices) * args.query_heads);
    MergeSplits::Args merge{.parts = args, .out = out, .log_sum = log_sum};
    if (s.head_dim % kBlock == 0) {
      merge.values = Make<int8_t>(q_.size());
      merge.scales = Make<float>(q_.size() / kBlock);
      merge.sums = Make<float>(q_.size() / kBlock);
    }
    device_->Launch<MergeSplits>({args.query_heads, s.slices}, merge);
    const std::vector<float> outputs = Download(out, q_.size());
    if (merge.values != nullptr) {
      const std::vector<int8_t> values = Download(merge.values, q_.size());
      const std::vector<float> scales = Download(merge.scales, q_.size() / kBlock);
      const std::vector<float> sums = Download(merge.sums, q_.size() / kBlock);
      for (size_t i = 0; i < q_.size(); ++i) {
        ASSERT_NEAR(values[i] * scales[i / kBlock], outputs[i], 0.5001f * scales[i / kBlock]);
      }
      for (size_t i = 0; i < sums.size(); ++i) {
        const auto first = values.begin() + static_cast<int64_t>(i) * kBlock;
        ASSERT_FLOAT_EQ(sums[i], scales[i] * static_cast<float>(std::accumulate(first, first + kBlock, 0)));
      }
    }
    const std::vector<float> log_sums = Download(log_sum, static_cast<size_t>(s.slices) * args.query_heads);
    for (int slice = 0; slice < s.slices; ++slice) {
      for (int head = 0; head < args.query_heads; ++head) {
        double expected_sum = 0;
        const std::vector<double> weights = Softmax(Scores(slice, head), &expected_sum);
        EXPECT_NEAR(log_sums[slice * args.query_heads + head], expected_sum, 1e-4 * spread);
        const auto& entries = entries_[slice * s.kv_heads + head / s.group];
        for (int c = 0; c < s.head_dim; ++c) {
          double expected = 0;
          for (size_t i = 0; i < weights.size(); ++i) {
            if (weights[i] == 0) continue;
            expected += weights[i] * Value(entries[i / kSlotsOfPage], i % kSlotsOfPage, c);
          }
          ASSERT_NEAR(outputs[(static_cast<size_t>(q_rows_[slice]) * args.query_heads + head) * s.head_dim + c],
                      expected, 2e-5 * spread)
              << "slice " << slice << ", head " << head << ", channel " << c << ", " << splits << " splits";
        }
      }
    }
  }
}

TEST_P(AttendTest, ScoresAndProbabilitiesOfEverySlot) {
  const Shape& s = GetParam();
  std::vector<ScoreJob> jobs;
  std::vector<float> log_sums;
  for (int slice = 0; slice < s.slices; ++slice) {
    for (int head = 0; head < s.kv_heads * s.group; ++head) {
      log_sums.push_back(0);
      double log_sum = 0;
      Softmax(Scores(slice, head), &log_sum);
      log_sums.back() = static_cast<float>(log_sum);
    }
  }
  const float* q = Upload(q_);
  const float* sums = Upload(log_sums);
  for (bool probabilities : {false, true}) {
    jobs.clear();
    for (int i = 0; i < s.slices * s.kv_heads; ++i) {
      const int slice = i / s.kv_heads, kv_head = i % s.kv_heads;
      ScoreJob job;
      job.head = heads_[i];
      job.q = q + (Query(slice, kv_head * s.group) - q_.data());
      job.queries = s.group;
      if (probabilities) job.log_sum = sums + slice * s.kv_heads * s.group + kv_head * s.group;
      job.out = Make<float>(static_cast<size_t>(s.group) * job.head.pages * kSlotsOfPage);
      jobs.push_back(job);
    }
    const ScoreJob* on_device = Upload(jobs);
    const int count = static_cast<int>(jobs.size());
    if (s.head_dim <= 16)
      Score<2>(on_device, count);
    else if (s.head_dim <= 32)
      Score<4>(on_device, count);
    else if (s.head_dim <= 64)
      Score<8>(on_device, count);
    else if (s.head_dim <= 128)
      Score<16>(on_device, count);
    else
      Score<32>(on_device, count);
    for (int i = 0; i < count; ++i) {
      const size_t slots = static_cast<size_t>(jobs[i].head.pages) * kSlotsOfPage;
      const std::vector<float> out = Download(jobs[i].out, s.group * slots);
      for (int g = 0; g < s.group; ++g) {
        std::vector<double> expected = Scores(i / s.kv_heads, i % s.kv_heads * s.group + g);
        double unused = 0;
        if (probabilities) expected = Softmax(expected, &unused);
        for (size_t k = 0; k < slots; ++k) {
          ASSERT_NEAR(out[g * slots + k], std::isnan(expected[k]) ? 0 : expected[k], 2e-5) << i << " " << g << " " << k;
        }
      }
    }
  }
}

// A prompt's last tokens, more than a tile of them, with their own rows among those that were there.
TEST_P(AttendTest, PromptsSeeOldRowsAndTheirOwnPast) {
  const Shape& s = GetParam();
  expand_to_halves_ = true;
  const int dim = s.head_dim, kv_head = s.kv_heads - 1, query_heads = s.kv_heads * s.group;
  const auto& entries = entries_[kv_head];
  const int slots = static_cast<int>(entries.size()) * kSlotsOfPage;
  std::vector<int32_t> taken[2];  // of kv head 0 and kv_head: valid slots, shuffled: the first are the new tokens'
  for (int h : {0, kv_head}) {
    auto& of = taken[h == kv_head];
    of.clear();
    for (int i = 0; i < static_cast<int>(entries_[h].size()) * kSlotsOfPage; ++i) {
      if ((entries_[h][i / kSlotsOfPage].valid >> i % kSlotsOfPage & 1) != 0) of.push_back(i);
    }
    std::shuffle(of.begin(), of.end(), random_);
  }
  const int tokens = static_cast<int>(std::min<size_t>(37, taken[1].size()));
  const std::vector<int32_t> new_slots(taken[1].begin(), taken[1].begin() + tokens);
  // Other kv heads have no new rows: a slot of theirs is named again and again.
  std::vector<int32_t> all_new;
  for (int h = 0; h < s.kv_heads; ++h) {
    for (int t = 0; t < tokens; ++t) all_new.push_back(h == kv_head ? new_slots[t] : taken[0][0]);
  }
  MarkBirths::Args mark;
  mark.heads = Upload(heads_);
  mark.stride = static_cast<int64_t>(s.most_pages) * kSlotsOfPage;
  mark.births = Make<int32_t>(s.kv_heads * mark.stride);
  device_->Launch<MarkBirths>({CeilDiv(mark.stride, MarkBirths::kThreads), s.kv_heads}, mark);
  mark.new_slots = Upload(all_new) + kv_head * tokens;
  mark.new_stride = 0;
  mark.new_count = tokens;
  mark.births += kv_head * mark.stride;
  device_->Launch<MarkBirths>({CeilDiv(tokens, MarkBirths::kThreads), 1}, mark);
  mark.births -= kv_head * mark.stride;

  std::vector<uint16_t> q(static_cast<size_t>(tokens) * query_heads * dim);
  for (uint16_t& x : q) x = FloatToHalf(2 * Normal());
  PrefillArgs args;
  args.memory = memory_;
  args.heads = mark.heads;
  args.births = mark.births;
  args.birth_stride = mark.stride;
  args.q = Upload(q);
  args.tokens = tokens;
  args.query_heads = query_heads;
  args.kv_heads = s.kv_heads;
  args.scale = 1 / std::sqrt(static_cast<float>(dim));
  args.out = Make<float>(q.size());
  args.log_sum = Make<float>(static_cast<size_t>(query_heads) * tokens);
  float* sums = Make<float>(static_cast<size_t>(s.group) * slots);
  if (dim <= 16) {
    Prefill<2>(args, kv_head, sums);
  } else if (dim <= 32) {
    Prefill<4>(args, kv_head, sums);
  } else if (dim <= 64) {
    Prefill<8>(args, kv_head, sums);
  } else if (dim <= 128) {
    Prefill<16>(args, kv_head, sums);
  } else {
    Prefill<32>(args, kv_head, sums);
  }
  const std::vector<float> outputs = Download(args.out, q.size());
  const std::vector<float> got_sums = Download(sums, static_cast<size_t>(s.group) * slots);

  std::vector<int> birth(slots, -1);
  for (int i = 0; i < tokens; ++i) birth[new_slots[i]] = i;
  std::vector<double> expected_sums(static_cast<size_t>(s.group) * slots);
  for (int t = 0; t < tokens; ++t) {
    for (int g = 0; g < s.group; ++g) {
      std::vector<double> of_slot(slots, std::nan(""));
      for (int i = 0; i < slots; ++i) {
        const PageEntry& entry = entries[i / kSlotsOfPage];
        if ((entry.valid >> i % kSlotsOfPage & 1) == 0 || birth[i] > t) continue;
        double dot = 0;
        for (int c = 0; c < dim; ++c) {
          dot += double{HalfToFloat(q[(t * query_heads + kv_head * s.group + g) * dim + c])} *
                 Key(entry, i % kSlotsOfPage, c);
        }
        of_slot[i] = dot / std::sqrt(dim);
      }
      double unused = 0;
      const std::vector<double> weights = Softmax(of_slot, &unused);
      for (int c = 0; c < dim; ++c) {
        double expected = 0;
        for (int i = 0; i < slots; ++i) {
          if (weights[i] == 0) continue;
          expected += weights[i] * Value(entries[i / kSlotsOfPage], i % kSlotsOfPage, c);
        }
        ASSERT_NEAR(outputs[(t * query_heads + kv_head * s.group + g) * dim + c], expected, 4e-3)
            << t << " " << g << " " << c;
      }
      for (int i = 0; i < slots; ++i) expected_sums[g * slots + i] += weights[i];
    }
  }
  for (size_t i = 0; i < got_sums.size(); ++i) ASSERT_NEAR(got_sums[i], expected_sums[i], 1e-4) << i;
}

TEST_P(AttendTest, RowsMoveOutOfSlotsAndIntoOthers) {
  const Shape& s = GetParam();
  std::vector<RowPlace> from, to;
  const PageEntry entry = entries_[0][0];
  for (uint16_t slot = 0; slot < kSlotsOfPage; ++slot) {
    if ((entry.valid >> slot & 1) == 0) continue;
    from.push_back({.place = entry.place, .row = slot});
    to.push_back({.place = entry.place, .row = static_cast<uint16_t>((slot + 1) % kSlotsOfPage)});
  }
  const size_t row = 2 * static_cast<size_t>(s.head_dim);
  auto* moved = Make<uint16_t>(from.size() * row);
  const Grid grid{static_cast<int>(from.size())};
  device_->Launch<MoveRows>(grid, {memory_, Upload(from), moved, false});
  device_->Launch<MoveRows>(grid, {memory_, Upload(to), moved, true});
  auto* again = Make<uint16_t>(from.size() * row);
  device_->Launch<MoveRows>(grid, {memory_, Upload(to), again, false});
  const std::vector<uint16_t> first = Download(moved, from.size() * row);
  EXPECT_EQ(first, Download(again, from.size() * row));
  for (size_t i = 0; i < from.size(); ++i) {
    for (int c = 0; c < s.head_dim; ++c) {
      ASSERT_EQ(first[i * row + c], At(entry.place, from[i].row, c));
      ASSERT_EQ(first[i * row + s.head_dim + c], At(entry.place, kSlotsOfPage + from[i].row, c));
    }
  }
}

TEST_P(AttendTest, PackedRowsAreReadAsHalves) {
  const Shape& s = GetParam();
  if (groups_.empty()) return;
  const auto& [place, expanded] = *groups_.begin();
  std::vector<RowPlace> places;
  for (const PageEntry& entry : entries_[0]) {
    for (uint16_t slot = 0; slot < kSlotsOfPage; ++slot) {
      if (entry.place != place || (entry.valid >> slot & 1) == 0) continue;
      places.push_back({.place = place,
                        .row = static_cast<uint16_t>(entry.half * kSlotsOfPage + slot),
                        .precision = entry.precision});
    }
  }
  ASSERT_FALSE(places.empty());
  const size_t row = 2 * static_cast<size_t>(s.head_dim);
  auto* out = Make<uint16_t>(places.size() * row);
  device_->Launch<MoveRows>({static_cast<int>(places.size())}, {memory_, Upload(places), out, false});
  const std::vector<uint16_t> got = Download(out, places.size() * row);
  for (size_t i = 0; i < places.size(); ++i) {
    for (size_t c = 0; c < row; ++c) ASSERT_EQ(got[i * row + c], FloatToHalf(expanded[places[i].row * row + c])) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Packed, AttendTest,
    testing::Values(Shape{64, 2, 3, 1, 14, KvPrecision::kInt8}, Shape{16, 1, 1, 1, 7, KvPrecision::kInt8},
                    Shape{128, 1, 4, 2, 11, KvPrecision::kKivi4}, Shape{80, 1, 2, 1, 8, KvPrecision::kKivi4},
                    Shape{256, 1, 8, 1, 6, KvPrecision::kKivi2}, Shape{48, 2, 16, 1, 9, KvPrecision::kKivi2}));
INSTANTIATE_TEST_SUITE_P(Shapes, AttendTest,
                         testing::Values(Shape{32, 1, 2, 1, 150}, Shape{64, 3, 3, 2, 23}, Shape{128, 2, 4, 1, 40},
                                         Shape{16, 1, 1, 3, 1}, Shape{32, 2, 2, 1, 5}, Shape{80, 1, 7, 2, 9},
                                         Shape{256, 1, 8, 1, 6}, Shape{48, 2, 16, 1, 12}, Shape{128, 1, 1, 2, 65}));

struct Rotation {
  int head_dim, pairs;
  bool neox, norm;
};

class RotateTest : public DeviceTest, public testing::WithParamInterface<Rotation> {};

TEST_P(RotateTest, RotatesNormalisesAndStores) {
  const Rotation& r = GetParam();
  constexpr int kTokens = 5, kHeads = 6, kKvHeads = 2, kSlices = 2;
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  auto numbers = [&](size_t count) {
    std::vector<float> values(count);
    for (float& x : values) x = normal(random);
    return values;
  };
  const int dim = r.head_dim;
  const std::vector<float> q = numbers(kTokens * kHeads * dim), k = numbers(kTokens * kKvHeads * dim),
                           v = numbers(kTokens * kKvHeads * dim), q_norm = numbers(dim), k_norm = numbers(dim);
  std::vector<float> cosine, sine;
  for (int i = 0; i < kTokens * r.pairs; ++i) {
    const float angle = normal(random);
    cosine.push_back(std::cos(angle));
    sine.push_back(std::sin(angle));
  }
  const std::vector<int32_t> slice = {0, 1, 1, 1, 1};
  // Pages of (slice, kv head), two each.
  std::vector<HeadPages> heads;
  for (uint32_t i = 0; i < kSlices * kKvHeads; ++i)
    heads.push_back({Upload(std::vector<PageEntry>{{.place = (2 * i + 1) * static_cast<uint32_t>(dim)},
                                                   {.place = 2 * i * static_cast<uint32_t>(dim)}}),
                     2, 0});
  const std::vector<int32_t> slots = {17, 3, 4, 31, 0, 2, 16, 15, 9, 1};  // [kv_heads][tokens]
  RotateAndStore::Args args;
  args.step = {Upload(slice), Upload(cosine), Upload(sine)};
  args.memory = {reinterpret_cast<char*>(Make<uint16_t>(8 * 2 * kSlotsOfPage * dim)), dim};
  args.heads = Upload(heads);
  args.slots = Upload(slots);
  args.tokens = kTokens;
  args.query_heads = kHeads;
  args.kv_heads = kKvHeads;
  args.head_dim = dim;
  args.pairs = r.pairs;
  args.neox = r.neox;
  args.q = Upload(q);
  args.q_half = Make<uint16_t>(q.size());
  args.k = Upload(k);
  args.v = Upload(v);
  if (r.norm) {
    args.q_norm = Upload(q_norm);
    args.k_norm = Upload(k_norm);
  }
  args.epsilon = 0.25f;  // large enough to be missed
  args.fresh = Make<uint16_t>(kKvHeads * kTokens * 2 * dim);
  device_->Launch<RotateAndStore>(RotateAndStore::GridOf(args), args);

  auto expect = [&](const float* x, const float* norm, int token) {
    std::vector<double> y(x, x + dim);
    if (r.norm) {
      double squares = 0;
      for (double value : y) squares += value * value;
      for (int c = 0; c < dim; ++c) y[c] *= norm[c] / std::sqrt(squares / dim + 0.25);
    }
    for (int i = 0; i < r.pairs; ++i) {
      double& a = y[r.neox ? i : 2 * i];
      double& b = y[r.neox ? i + r.pairs : 2 * i + 1];
      const double before = a;
      a = before * cosine[token * r.pairs + i] - b * sine[token * r.pairs + i];
      b = before * sine[token * r.pairs + i] + b * cosine[token * r.pairs + i];
    }
    return y;
  };
  const std::vector<float> rotated = Download(args.q, q.size());
  const std::vector<uint16_t> halves = Download(args.q_half, q.size());
  const std::vector<uint16_t> memory =
      Download(reinterpret_cast<const uint16_t*>(args.memory.base), 8 * 2 * kSlotsOfPage * dim);
  const std::vector<uint16_t> fresh = Download(args.fresh, kKvHeads * kTokens * 2 * dim);
  for (int token = 0; token < kTokens; ++token) {
    for (int head = 0; head < kHeads; ++head) {
      const size_t at = (static_cast<size_t>(token) * kHeads + head) * dim;
      const std::vector<double> expected = expect(&q[at], q_norm.data(), token);
      for (int c = 0; c < dim; ++c) {
        ASSERT_NEAR(rotated[at + c], expected[c], 1e-5);
        ASSERT_NEAR(HalfToFloat(halves[at + c]), expected[c], 5e-3);
      }
    }
    for (int head = 0; head < kKvHeads; ++head) {
      const size_t at = (static_cast<size_t>(token) * kKvHeads + head) * dim;
      const std::vector<double> key = expect(&k[at], k_norm.data(), token);
      const int slot = slots[head * kTokens + token], index = slice[token] * kKvHeads + head;
      const size_t page = slot < 16 ? 2 * index + 1 : 2 * index;
      for (int c = 0; c < dim; ++c) {
        const uint16_t stored = memory[(page * 2 * kSlotsOfPage + slot % 16) * dim + c];
        const uint16_t value = memory[(page * 2 * kSlotsOfPage + kSlotsOfPage + slot % 16) * dim + c];
        ASSERT_NEAR(HalfToFloat(stored), key[c], 5e-3);
        ASSERT_EQ(value, FloatToHalf(v[at + c]));
        ASSERT_EQ(fresh[(static_cast<size_t>(head) * kTokens + token) * 2 * dim + c], stored);
        ASSERT_EQ(fresh[(static_cast<size_t>(head) * kTokens + token) * 2 * dim + dim + c], value);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, RotateTest,
                         testing::Values(Rotation{64, 32, false, false}, Rotation{128, 64, true, true},
                                         Rotation{48, 16, true, false}, Rotation{16, 8, false, true}));

}  // namespace
}  // namespace tidepool::cuda
