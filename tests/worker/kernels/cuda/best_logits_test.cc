// The best logits of rows are those of TopLogits, in its order.
#include <cmath>
#include <limits>
#include <random>

#include "tests/worker/kernels/cuda/device_fixture.h"
#include "worker/engine/top_logits.h"
#include "worker/kernels/cuda/best_logits_body.h"

namespace tidepool::cuda {
namespace {

class BestLogitsTest : public DeviceTest {
 protected:
  // Launches until one part is left.
  std::vector<std::vector<TokenLogit>> Best(const std::vector<float>& logits, int rows, int count) {
    BestLogits::Args args{
        .logits = Upload(logits), .values = static_cast<int32_t>(logits.size()) / rows, .count = count};
    for (;;) {
      const int parts = CeilDiv(args.values, BestLogits::kValues);
      args.best = Make<float>(static_cast<size_t>(rows) * parts * count);
      args.best_ids = Make<int32_t>(static_cast<size_t>(rows) * parts * count);
      device_->Launch<BestLogits>({parts, rows}, args);
      if (parts == 1) break;
      args.logits = args.best;
      args.ids = args.best_ids;
      args.values = parts * count;
    }
    const std::vector<float> best = Download(args.best, static_cast<size_t>(rows) * count);
    const std::vector<int32_t> ids = Download(args.best_ids, static_cast<size_t>(rows) * count);
    std::vector<std::vector<TokenLogit>> of_rows(rows);
    for (int i = 0; i < rows * count; ++i) {
      if (ids[i] >= 0) of_rows[i / count].push_back({best[i], ids[i]});
    }
    return of_rows;
  }
  void ExpectBest(const std::vector<float>& logits, int rows, int count) {
    const std::vector<std::vector<TokenLogit>> got = Best(logits, rows, count);
    const size_t values = logits.size() / rows;
    for (int row = 0; row < rows; ++row) {
      std::vector<TokenLogit> expected;
      TopLogits(absl::MakeConstSpan(logits).subspan(row * values, values), count, expected);
      ASSERT_EQ(got[row].size(), expected.size()) << values << " values, row " << row;
      for (size_t i = 0; i < expected.size(); ++i) {
        ASSERT_EQ(got[row][i].token, expected[i].token) << values << " values, row " << row << ", " << i;
        ASSERT_EQ(got[row][i].logit, expected[i].logit);
      }
    }
  }
};

TEST_F(BestLogitsTest, AreThoseOfTheHost) {
  std::mt19937 random(3);
  for (const int values : {1, 31, 500, BestLogits::kValues, BestLogits::kValues + 1, 3 * BestLogits::kValues - 5}) {
    for (const int count : {1, 5, 64}) {
      std::vector<float> logits(3 * values);
      for (float& x : logits) x = static_cast<float>(random() % 1000) - 500;  // many are equal
      ExpectBest(logits, 3, count);
    }
  }
}

TEST_F(BestLogitsTest, NothingCountsThatIsNoNumber) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::vector<float> logits(2 * BestLogits::kValues, -kInfinity);
  logits[7] = std::nanf("");
  ExpectBest(logits, 1, 3);
  logits[4000] = -5;
  logits[5000] = kInfinity;
  logits[6000] = -std::numeric_limits<float>::max();
  ExpectBest(logits, 1, 3);
  ExpectBest(logits, 1, 4);
}

}  // namespace
}  // namespace tidepool::cuda
