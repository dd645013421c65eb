// Recall's scores by product codes, and the rows chosen by them, are those of the host.
#include <algorithm>
#include <cmath>
#include <random>

#include "policies/recall/product_code.h"
#include "policies/recall/select_rows.h"
#include "tests/worker/kernels/cuda/device_fixture.h"
#include "worker/kernels/cuda/recall_body.h"

namespace tidepool::cuda {
namespace {

// A (layer, kv head): its index, queries, and which rows may be chosen.
struct Head {
  ProductShape shape;
  int32_t positions = 0, coded = 0, count = 0;
  std::vector<ProductTables> tables;  // of segments
  std::vector<int32_t> first;         // row of each, and the end
  std::vector<uint8_t> codes;
  std::vector<float> q, exact;
  std::vector<uint32_t> bits;
  std::vector<RecallState> state;
  std::vector<int32_t> held;
};

struct Shape {
  int head_dim, queries;
  int32_t positions, coded, count;
};

class RecallTest : public DeviceTest {
 protected:
  // Many rows are alike: their weights are equal.
  Head Make(const Shape& of) {
    Head head;
    head.shape = {of.head_dim, of.head_dim / 4, 4};
    head.positions = of.positions;
    head.coded = of.coded;
    head.count = of.count;
    std::normal_distribution<float> normal;
    std::vector<float> weight(of.head_dim), keys(static_cast<size_t>(of.coded) * of.head_dim);
    for (float& w : weight) w = 0.5f + std::abs(normal(random_));
    for (int32_t row = 0; row < of.coded; ++row) {
      const int32_t like = row >= 16 && random_() % 3 == 0 ? static_cast<int32_t>(random_() % row) : -1;
      for (int c = 0; c < of.head_dim; ++c) {
        keys[static_cast<size_t>(row) * of.head_dim + c] =
            like < 0 ? normal(random_) : keys[static_cast<size_t>(like) * of.head_dim + c];
      }
    }
    head.first = {0};
    if (of.coded > 128) head.first.push_back(64);  // a short one, and what is left
    head.first.push_back(of.coded);
    for (size_t s = 0; s + 1 < head.first.size() && of.coded > 0; ++s) {
      const auto part =
          absl::MakeConstSpan(keys).subspan(static_cast<size_t>(head.first[s]) * of.head_dim,
                                            static_cast<size_t>(head.first[s + 1] - head.first[s]) * of.head_dim);
      head.tables.push_back(TrainProductTables(head.shape, part, weight));
      const size_t at = head.codes.size();
      head.codes.resize(at + head.shape.CodeBytes(head.first[s + 1] - head.first[s]));
      EncodeProduct(head.shape, head.tables.back(), part.data(), head.first[s + 1] - head.first[s],
                    head.codes.data() + at);
    }
    for (int i = 0; i < of.queries * of.head_dim; ++i) head.q.push_back(2 * normal(random_));
    const int32_t uncoded = std::max(0, of.positions - of.coded);
    for (int i = 0; i < of.queries * uncoded; ++i) head.exact.push_back(3 * normal(random_));
    head.state.resize(of.positions);
    head.bits.resize((of.positions + 31) / 32);
    for (int32_t i = 0; i < of.positions; ++i) {
      const bool candidate = random_() % 4 != 0 || i + 1 == of.positions;
      head.state[i] = candidate ? RecallState::kCandidate : RecallState::kOut;
      head.bits[i / 32] |= static_cast<uint32_t>(candidate) << i % 32;
      if (candidate && random_() % 50 == 0) head.held.push_back(i);
    }
    return head;
  }

  // The host's estimates, [queries][positions].
  static std::vector<float> Estimates(const Head& head, int queries) {
    std::vector<float> all;
    for (int j = 0; j < queries; ++j) {
      const float* q = head.q.data() + static_cast<size_t>(j) * head.shape.head_dim;
      std::vector<float> table(static_cast<size_t>(head.shape.groups) * 16);
      RoundedScoreTable rounded;
      size_t segment = head.tables.size();
      for (int32_t i = 0; i < std::min(head.positions, head.coded); ++i) {
        const size_t of_row = head.tables.size() > 1 && i >= head.first[1] ? 1 : 0;
        if (of_row != segment) {
          segment = of_row;
          ProductScoreTable(head.shape, head.tables[segment], q, table.data());
          RoundScoreTable(head.shape, table.data(), rounded);
        }
        all.push_back(EstimateProduct(head.shape, rounded, head.codes.data(), i));
      }
      const int32_t uncoded = std::max(0, head.positions - head.coded);
      for (int32_t i = 0; i < uncoded; ++i) all.push_back(head.exact[static_cast<size_t>(j) * uncoded + i]);
    }
    return all;
  }

  RecallJob Upload(const Head& head, int queries) {
    RecallJob job;
    std::vector<char> tables;
    for (const ProductTables& of : head.tables) {
      const auto append = [&](const void* from, size_t bytes) {
        tables.insert(tables.end(), static_cast<const char*>(from), static_cast<const char*>(from) + bytes);
      };
      append(of.offset.data(), of.offset.size() * sizeof(float));
      append(of.scale.data(), of.scale.size() * sizeof(float));
      append(of.centroid.data(), of.centroid.size());
      append(of.channel.data(), of.channel.size());
    }
    EXPECT_EQ(tables.size(), head.tables.size() * RecallTableBytes(head.shape.head_dim));
    std::vector<RecallPart> parts;
    const int32_t coded = std::min(head.positions, head.coded);
    for (size_t s = 0; s < head.tables.size(); ++s) {
      const int end = CeilDiv(std::min(coded, head.first[s + 1]), kProductTileRows);
      for (int tile = head.first[s] / kProductTileRows; tile < end; tile += ScanCodes::kTiles) {
        parts.push_back({static_cast<int32_t>(s), tile, std::min(ScanCodes::kTiles, end - tile)});
      }
    }
    if (coded < head.positions) parts.push_back({.segment = -1});
    job.codes = DeviceTest::Upload(head.codes);
    job.tables = DeviceTest::Upload(tables);
    job.parts = DeviceTest::Upload(parts);
    job.q = DeviceTest::Upload(head.q);
    job.exact = DeviceTest::Upload(head.exact);
    job.candidates = DeviceTest::Upload(head.bits);
    job.held = DeviceTest::Upload(head.held);
    job.queries = queries;
    job.positions = head.positions;
    job.coded = coded;
    job.part_count = static_cast<int32_t>(parts.size());
    job.count = head.count;
    job.held_count = static_cast<int32_t>(head.held.size());
    const size_t told = static_cast<size_t>(queries) * (job.count + job.held_count);
    job.estimate = DeviceTest::Make<float>(static_cast<size_t>(queries) * job.positions);
    job.rank = DeviceTest::Make<uint32_t>(job.positions);
    job.sums = DeviceTest::Make<float>(static_cast<size_t>(queries) * RecallJob::kSums);
    job.found = DeviceTest::Make<int32_t>(1 + job.count);
    job.row_estimate = DeviceTest::Make<float>(told);
    job.row_share = DeviceTest::Make<float>(told);
    return job;
  }

  void Launch(const std::vector<RecallJob>& jobs, int head_dim) {
    const RecallJob* on_device = DeviceTest::Upload(jobs);
    int parts = 0, queries = 0;
    for (const RecallJob& job : jobs) {
      parts = std::max(parts, job.part_count);
      queries = std::max(queries, job.queries);
    }
    const auto count = static_cast<int>(jobs.size());
    const float scale = 1.44269504f / std::sqrt(static_cast<float>(head_dim));
    device_->Launch<ScanCodes>({parts, CeilDiv(queries, ScanCodes::kQueries), count}, {on_device, head_dim});
    device_->Launch<SumShares>({queries, count}, {on_device, scale});
    device_->Launch<FindBestRows>({count}, {on_device, scale});
  }

  void Expect(const Head& head, const RecallJob& job) {
    const int queries = job.queries;
    const auto positions = static_cast<size_t>(job.positions);
    const std::vector<float> estimate = Download(job.estimate, queries * positions);
    const std::vector<float> reference = Estimates(head, queries);
    const std::vector<float> sums = Download(job.sums, static_cast<size_t>(queries) * RecallJob::kSums);
    const float scale = 1 / std::sqrt(static_cast<float>(head.shape.head_dim));
    // An entry of a table on the border of two levels may be rounded to the other.
    for (size_t i = 0; i < estimate.size(); ++i) ASSERT_NEAR(estimate[i], reference[i], 0.2) << i;
    std::vector<std::vector<double>> shares(queries);
    std::vector<double> weight(positions, 0.0);
    for (int j = 0; j < queries; ++j) {
      const float* x = estimate.data() + j * positions;
      const float* of = sums.data() + static_cast<size_t>(j) * RecallJob::kSums;
      double most = -INFINITY, chosen = 0, all = 0;
      for (size_t i = 0; i < positions; ++i) {
        if (head.state[i] != RecallState::kOut) most = std::max(most, double{x[i]} * scale);
      }
      ASSERT_NEAR(of[RecallJob::kMaximum], most * std::log2(M_E), 1e-3);
      for (size_t i = 0; i < positions; ++i) {
        const double term = std::exp(std::min(60.0, x[i] * scale - most));
        shares[j].push_back(term);
        all += term;
        chosen += head.state[i] != RecallState::kOut ? term : 0;
      }
      ASSERT_NEAR(of[RecallJob::kCandidates], chosen, 1e-4 * chosen);
      ASSERT_NEAR(of[RecallJob::kAll], all, 1e-4 * all);
      for (size_t i = 0; i < positions; ++i) weight[i] += shares[j][i] / chosen / queries;
    }

    std::vector<float> ranked(positions);
    for (size_t i = 0; i < positions; ++i) ranked[i] = static_cast<float>(weight[i]);
    std::vector<int32_t> expected = BestRows({ranked, head.state}, head.count);
    std::sort(expected.begin(), expected.end());
    std::vector<int32_t> found = Download(job.found, 1 + head.count);
    ASSERT_EQ(found[0], static_cast<int32_t>(expected.size()));
    found = {found.begin() + 1, found.begin() + 1 + static_cast<int64_t>(expected.size())};
    ASSERT_EQ(found, expected);

    const size_t told = head.count + head.held.size();
    const std::vector<float> row_estimate = Download(job.row_estimate, queries * told),
                             row_share = Download(job.row_share, queries * told);
    for (int j = 0; j < queries; ++j) {
      double rest = sums[static_cast<size_t>(j) * RecallJob::kSums + RecallJob::kCandidates];
      std::vector<bool> counted(positions);
      for (size_t n = 0; n < told; ++n) {
        if (n >= found.size() && n < static_cast<size_t>(head.count)) continue;
        const int32_t row = n < found.size() ? found[n] : head.held[n - head.count];
        ASSERT_EQ(row_estimate[j * told + n], estimate[j * positions + row]) << "of row " << row;
        ASSERT_NEAR(row_share[j * told + n], shares[j][row], 1e-5 + 1e-4 * shares[j][row]);
        if (!counted[row]) rest -= shares[j][row];
        counted[row] = true;
      }
      ASSERT_NEAR(sums[static_cast<size_t>(j) * RecallJob::kSums + RecallJob::kRest], rest, 1e-3 + 1e-3 * rest);
    }
  }

  std::mt19937 random_{11};
};

TEST_F(RecallTest, FindsTheRowsOfTheHost) {
  for (const Shape& shape : std::vector<Shape>{{16, 1, 1, 0, 4},
                                               {16, 2, 60, 64, 7},     // the codes end after what may be chosen
                                               {32, 3, 131, 128, 40},  // and before
                                               {64, 4, 700, 640, 33},
                                               {64, 9, 1000, 1024, 1},  // several CTAs' query heads
                                               {128, 4, 2500, 2432, 500},
                                               {256, 5, 257, 192, 1000}}) {  // more than there are
    const Head head = Make(shape);
    const RecallJob job = Upload(head, shape.queries);
    Launch({job}, shape.head_dim);
    Expect(head, job);
    if (HasFatalFailure()) FAIL() << "head_dim " << shape.head_dim << ", " << shape.positions << " positions";
  }
}

TEST_F(RecallTest, HeadsAreToldApart) {
  const std::vector<Shape> shapes = {{64, 3, 300, 256, 20}, {64, 1, 80, 64, 5}, {64, 7, 2200, 2176, 50}};
  std::vector<Head> heads;
  std::vector<RecallJob> jobs;
  for (const Shape& shape : shapes) {
    heads.push_back(Make(shape));
    jobs.push_back(Upload(heads.back(), shape.queries));
  }
  Launch(jobs, 64);
  for (size_t i = 0; i < heads.size(); ++i) Expect(heads[i], jobs[i]);
}

// All scores are alike: the first rows are taken, over the borders of warps.
TEST_F(RecallTest, OfEqualRowsTheFirst) {
  Head head = Make({16, 2, 1500, 0, 700});
  std::fill(head.exact.begin(), head.exact.end(), 1.0f);
  const RecallJob job = Upload(head, 2);
  Launch({job}, 16);
  Expect(head, job);
}

TEST_F(RecallTest, QueriesThatAreNoNumbersScoreAlike) {
  Head head = Make({32, 2, 128, 128, 9});
  head.q[5] = INFINITY;
  const RecallJob job = Upload(head, 2);
  device_->Launch<ScanCodes>({job.part_count, 1, 1}, {DeviceTest::Upload(std::vector{job}), 32});
  const std::vector<float> estimate = Download(job.estimate, size_t{2} * job.positions);
  const std::vector<float> reference = Estimates(head, 2);
  for (int32_t i = 0; i < job.positions; ++i) {
    ASSERT_FALSE(std::isfinite(estimate[i])) << i;
    ASSERT_NEAR(estimate[job.positions + i], reference[job.positions + i], 0.2) << i;
  }
}

}  // namespace
}  // namespace tidepool::cuda
