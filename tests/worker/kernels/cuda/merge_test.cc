// D2O's kernels: which kept key is most like one that goes, and mixtures of rows.
#include <algorithm>
#include <cmath>
#include <random>

#include "tests/worker/kernels/cuda/device_fixture.h"
#include "tests/worker/kernels/cuda/packed_image.h"
#include "worker/kernels/cuda/merge_rows_body.h"

namespace tidepool::cuda {
namespace {

struct Merging {
  int head_dim, pages, going, splits;
  KvPrecision precision = KvPrecision::kF16;  // of a group behind the pages
};

std::ostream& operator<<(std::ostream& out, const Merging& m) {
  return out << m.head_dim << ", " << m.pages << " pages, " << m.going << " going, " << m.splits << " splits";
}

// A head of slot pages, every third slot free and NaN, and a packed page.
class MergeTest : public DeviceTest, public testing::WithParamInterface<Merging> {
 protected:
  MergeTest() {
    const Merging& m = GetParam();
    rows_.assign(static_cast<size_t>(m.pages) * 2 * kSlotsOfPage * m.head_dim, 0x7e00);
    for (int p = 0; p < m.pages; ++p) {
      PageEntry entry{.place = static_cast<uint32_t>(p * m.head_dim)};
      for (int slot = 0; slot < kSlotsOfPage; ++slot) {
        if ((p * kSlotsOfPage + slot) % 3 == 2) continue;
        entry.valid = static_cast<uint16_t>(entry.valid | 1 << slot);
        AddRow({.place = entry.place, .row = static_cast<uint16_t>(slot)}, RandomRow());
      }
      entries_.push_back(entry);
    }
    if (m.precision != KvPrecision::kF16) AddGroup();
    memory_ = {reinterpret_cast<char*>(Upload(rows_)), m.head_dim};
  }

  struct Row {
    RowPlace place;
    int slot;
    std::vector<float> values;  // K, V
  };
  // Of small numbers, so that rows are often alike: cosines are equal then.
  std::vector<float> RandomRow() {
    std::vector<float> row(2 * GetParam().head_dim);
    for (float& x : row) x = static_cast<float>(static_cast<int>(random_() % 3) - 1);
    if (random_() % 4 == 0) std::fill(row.begin(), row.end(), 0.0f);
    row[0] += 0.5f;
    return row;
  }
  void AddRow(const RowPlace& place, const std::vector<float>& values) {
    const int head_dim = GetParam().head_dim;
    for (int c = 0; c < 2 * head_dim; ++c) {
      const size_t at = size_t{place.place} * kPlaceBytes / 2 +
                        (c < head_dim ? place.row : kSlotsOfPage + place.row) * head_dim + c % head_dim;
      rows_[at] = FloatToHalf(values[c]);
    }
    here_.push_back({place, static_cast<int>(entries_.size()) * kSlotsOfPage + place.row, values});
  }
  void AddGroup() {
    const Merging& m = GetParam();
    std::vector<float> keys, values;
    for (int i = 0; i < kGroupTokens; ++i) {
      const std::vector<float> row = RandomRow();
      keys.insert(keys.end(), row.begin(), row.begin() + m.head_dim);
      values.insert(values.end(), row.begin() + m.head_dim, row.end());
    }
    const std::vector<char> page = test::PackedOnDevice(m.precision, m.head_dim, keys, values);
    const std::vector<float> expanded = test::Expanded(m.precision, m.head_dim, keys, values);
    const auto place = static_cast<uint32_t>(rows_.size() * 2 / kPlaceBytes);
    for (uint8_t half = 0; half < 2; ++half) {
      entries_.push_back({.place = place, .valid = 0xffff, .precision = m.precision, .half = half});
    }
    for (int i = 0; i < kGroupTokens; ++i) {
      std::vector<float> row;
      for (int c = 0; c < 2 * m.head_dim; ++c)
        row.push_back(HalfToFloat(FloatToHalf(expanded[i * 2 * m.head_dim + c])));
      here_.push_back({{.place = place, .row = static_cast<uint16_t>(i), .precision = m.precision},
                       m.pages * kSlotsOfPage + i,
                       row});
    }
    rows_.resize(rows_.size() + page.size() / 2);
    std::memcpy(reinterpret_cast<char*>(rows_.data()) + size_t{place} * kPlaceBytes, page.data(), page.size());
  }
  double Cosine(const Row& a, const Row& b) const {
    double dot = 0, aa = 0, bb = 0;
    for (int c = 0; c < GetParam().head_dim; ++c) {
      dot += double{a.values[c]} * b.values[c];
      aa += double{a.values[c]} * a.values[c];
      bb += double{b.values[c]} * b.values[c];
    }
    return dot / std::max(std::sqrt(aa * bb), 1e-24);
  }
  template <int kLanes>
  void Alike(const MeasureKeys::Args& args, int count) {
    device_->Launch<AlikeRows<kLanes>>({CeilDiv(count, AlikeRows<kLanes>::kRows), GetParam().splits, 2}, args);
  }

  std::mt19937 random_{11};
  std::vector<uint16_t> rows_;
  std::vector<PageEntry> entries_;
  std::vector<Row> here_;
  PageMemoryView memory_;
};

TEST_P(MergeTest, FindsTheKeptKeyThatIsMostAlike) {
  const Merging& m = GetParam();
  std::vector<Row> rows = here_;
  std::shuffle(rows.begin(), rows.end(), random_);
  const std::vector<Row> going(rows.begin(), rows.begin() + m.going), kept(rows.begin() + m.going, rows.end());
  const size_t slots = entries_.size() * kSlotsOfPage;
  std::vector<int32_t> rank(slots, -1);
  for (size_t i = 0; i < kept.size(); ++i) rank[kept[i].slot] = static_cast<int32_t>(i);
  std::vector<RowPlace> places;
  for (const Row& row : going) places.push_back(row.place);
  const int parts = AlikeRows<16>::PartsOf(m.splits);
  AlikeJob job;
  job.head = {Upload(entries_), static_cast<int32_t>(entries_.size()), 0};
  job.going = Upload(places);
  job.rank = Upload(rank);
  job.count = m.going;
  job.keys = Make<uint16_t>(static_cast<size_t>(m.going) * m.head_dim);
  job.inverse = Make<float>(slots);
  job.length = Make<float>(m.going);
  job.cosine = Make<float>(static_cast<size_t>(parts) * m.going);
  job.best = Make<int32_t>(static_cast<size_t>(parts) * m.going);
  AlikeJob nothing = job;  // another head, of which no row goes and whose slots nobody keeps
  nothing.count = 0;
  nothing.head.pages = 1;
  nothing.rank = Upload(std::vector<int32_t>(kSlotsOfPage, -1));
  const MeasureKeys::Args args{memory_, Upload(std::vector<AlikeJob>{nothing, job})};
  device_->Launch<MeasureKeys>({CeilDiv(m.going + static_cast<int64_t>(slots), MeasureKeys::kWarps), 2}, args);
  if (m.head_dim <= 16) {
    Alike<2>(args, m.going);
  } else if (m.head_dim <= 32) {
    Alike<4>(args, m.going);
  } else if (m.head_dim <= 64) {
    Alike<8>(args, m.going);
  } else if (m.head_dim <= 128) {
    Alike<16>(args, m.going);
  } else {
    Alike<32>(args, m.going);
  }
  const std::vector<float> cosines = Download(job.cosine, static_cast<size_t>(parts) * m.going);
  const std::vector<int32_t> best = Download(job.best, static_cast<size_t>(parts) * m.going);
  for (int i = 0; i < m.going; ++i) {
    // In each part the first of the best, as it sees them: by its own cosines, which are off in the last bits.
    double most = -2;
    for (int part = 0; part < parts; ++part) {
      double expected = -2;
      for (const Row& row : kept) {
        if (row.slot / kSlotsOfPage % parts == part) expected = std::max(expected, Cosine(going[i], row));
      }
      const size_t at = static_cast<size_t>(part) * m.going + i;
      if (expected == -2) {
        ASSERT_EQ(best[at], -1);
        ASSERT_EQ(cosines[at], kNoCosine);
        continue;
      }
      ASSERT_GE(best[at], 0) << "row " << i << ", part " << part;
      ASSERT_NEAR(cosines[at], expected, 1e-5);
      ASSERT_EQ(kept[best[at]].slot / kSlotsOfPage % parts, part);
      ASSERT_NEAR(Cosine(going[i], kept[best[at]]), expected, 1e-5);
      for (int r = 0; r < best[at]; ++r) {  // the same key before it would have been taken
        if (kept[r].slot / kSlotsOfPage % parts != part) continue;
        ASSERT_FALSE(
            std::equal(kept[r].values.begin(), kept[r].values.begin() + m.head_dim, kept[best[at]].values.begin()));
      }
      most = std::max(most, expected);
    }
    ASSERT_GT(most, -2);
  }
}

TEST_P(MergeTest, MixturesAreTheHostsBitForBit) {
  const Merging& m = GetParam();
  std::vector<Row> rows = here_;
  std::shuffle(rows.begin(), rows.end(), random_);
  std::vector<MixRows::Mixture> mixtures;
  std::vector<MixRows::Source> sources;
  std::vector<std::vector<uint16_t>> expected;
  std::vector<RowPlace> to;
  size_t next = 0;
  for (const int count : {1, 0, 3}) {
    // Into itself where it is plain, else into the place of another row.
    const Row& from = rows[next++];
    RowPlace target = from.place;
    while (target.precision != KvPrecision::kF16) target = rows[next++].place;
    MixRows::Mixture mixture{
        .from = from.place, .to = target, .first = static_cast<int32_t>(sources.size()), .count = count};
    mixture.own = 2.718281828459045;
    mixture.divisor = mixture.own;
    std::vector<double> sums;
    for (const float x : from.values) sums.push_back(mixture.own * x);
    for (int s = 0; s < count; ++s) {
      const Row& source = rows[next++];
      const double weight = 0.3 + 0.1 * s;
      mixture.divisor += weight;
      sources.push_back({source.place, weight});
      for (size_t c = 0; c < sums.size(); ++c) sums[c] += weight * source.values[c];
    }
    mixtures.push_back(mixture);
    to.push_back(target);
    std::vector<uint16_t>& row = expected.emplace_back();
    for (const double sum : sums) row.push_back(FloatToHalf(static_cast<float>(sum / mixture.divisor)));
  }
  device_->Launch<MixRows>({3}, {memory_, Upload(mixtures), Upload(sources)});
  const std::vector<uint16_t> memory = Download(reinterpret_cast<const uint16_t*>(memory_.base), rows_.size());
  for (size_t i = 0; i < to.size(); ++i) {
    for (int c = 0; c < 2 * m.head_dim; ++c) {
      const size_t at = size_t{to[i].place} * kPlaceBytes / 2 +
                        (c < m.head_dim ? to[i].row : kSlotsOfPage + to[i].row) * m.head_dim + c % m.head_dim;
      ASSERT_EQ(memory[at], expected[i][c]) << "mixture " << i << ", element " << c;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, MergeTest,
                         testing::Values(Merging{16, 2, 1, 1}, Merging{32, 9, 33, 2}, Merging{64, 20, 70, 1},
                                         Merging{128, 7, 3, 2, KvPrecision::kInt8},
                                         Merging{80, 5, 40, 1, KvPrecision::kKivi4},
                                         Merging{256, 4, 9, 3, KvPrecision::kKivi2}));

}  // namespace
}  // namespace tidepool::cuda
