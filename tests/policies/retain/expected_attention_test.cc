#include "policies/retain/expected_attention.h"

#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "gtest/gtest.h"

namespace tidepool {
namespace {

using Matrix = std::vector<std::vector<double>>;

std::vector<float> Normal(int count, int seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> out(count);
  for (float& x : out) x = normal(random);
  return out;
}

// The rotation of one position as a matrix, entry by entry.
Matrix RotationAt(const std::vector<float>& frequencies, int head_dim, double position, bool neox) {
  Matrix r(head_dim, std::vector<double>(head_dim, 0.0));
  for (int i = 0; i < head_dim; ++i) r[i][i] = 1;
  const int pairs = static_cast<int>(frequencies.size());
  for (int i = 0; i < pairs; ++i) {
    const int a = neox ? i : 2 * i, b = neox ? pairs + i : 2 * i + 1;
    const double angle = frequencies[i] * position;
    r[a][a] = r[b][b] = std::cos(angle);
    r[a][b] = -std::sin(angle);
    r[b][a] = std::sin(angle);
  }
  return r;
}

Matrix Product(const Matrix& a, const Matrix& b) {
  Matrix c(a.size(), std::vector<double>(b[0].size(), 0.0));
  for (size_t i = 0; i < a.size(); ++i) {
    for (size_t j = 0; j < b[0].size(); ++j) {
      for (size_t k = 0; k < b.size(); ++k) c[i][j] += a[i][k] * b[k][j];
    }
  }
  return c;
}

Matrix Transposed(const Matrix& a) {
  Matrix t(a[0].size(), std::vector<double>(a.size()));
  for (size_t i = 0; i < a.size(); ++i) {
    for (size_t j = 0; j < a[0].size(); ++j) t[j][i] = a[i][j];
  }
  return t;
}

std::vector<double> Softmax(std::vector<double> x) {
  double sum = 0;
  for (double& v : x) sum += v = std::exp(v);
  for (double& v : x) v /= sum;
  return x;
}

TEST(ExpectedAttentionTest, MeanAndCovarianceEqualTheirDefinitions) {
  const int d = 5, n = 9;
  const std::vector<float> q = Normal(n * d, 1);
  const QueryDistribution out = DistributionOfQueries(q, d);
  for (int i = 0; i < d; ++i) {
    double mean = 0;
    for (int t = 0; t < n; ++t) mean += q[t * d + i] / double(n);
    EXPECT_NEAR(out.mean[i], mean, 1e-12);
    for (int j = 0; j < d; ++j) {
      // E[xy] - E[x]E[y], the other way to say it.
      double product = 0, mean_j = 0;
      for (int t = 0; t < n; ++t) {
        product += double{q[t * d + i]} * q[t * d + j] / n;
        mean_j += q[t * d + j] / double(n);
      }
      EXPECT_NEAR(out.covariance[i * d + j], product - mean * mean_j, 1e-12);
    }
  }
}

TEST(ExpectedAttentionTest, RotationEqualsTheMeanOfTheRotationMatrices) {
  const std::vector<float> frequencies = {1.0f, 0.3f, 0.05f};
  const int positions = 7, first = 20;
  for (const int head_dim : {6, 8}) {  // in 8, two channels are not rotated
    for (const bool neox : {false, true}) {
      Matrix r(head_dim, std::vector<double>(head_dim, 0.0));
      for (int p = first; p < first + positions; ++p) {
        const Matrix at = RotationAt(frequencies, head_dim, p, neox);
        for (int i = 0; i < head_dim; ++i) {
          for (int j = 0; j < head_dim; ++j) r[i][j] += at[i][j] / positions;
        }
      }
      QueryDistribution queries = DistributionOfQueries(Normal(12 * head_dim, 2), head_dim);
      Matrix mean(head_dim, std::vector<double>(1)), covariance(head_dim, std::vector<double>(head_dim));
      for (int i = 0; i < head_dim; ++i) {
        mean[i][0] = queries.mean[i];
        for (int j = 0; j < head_dim; ++j) covariance[i][j] = queries.covariance[i * head_dim + j];
      }
      mean = Product(r, mean);
      covariance = Product(Product(r, covariance), Transposed(r));
      Rotate(RotationAhead(frequencies, first, positions, neox), queries);
      for (int i = 0; i < head_dim; ++i) {
        EXPECT_NEAR(queries.mean[i], mean[i][0], 1e-12);
        for (int j = 0; j < head_dim; ++j) {
          EXPECT_NEAR(queries.covariance[i * head_dim + j], covariance[i][j], 1e-12);
        }
      }
    }
  }
}

TEST(ExpectedAttentionTest, OneQueryAtOnePositionIsAttentionItself) {
  const int d = 6, rows = 11, position = 40;
  const std::vector<float> frequencies = {1.0f, 0.3f, 0.05f};
  const std::vector<float> q = Normal(d, 3), keys = Normal(rows * d, 4), ones(rows, 1.0f);
  QueryDistribution queries = DistributionOfQueries(q, d);
  Rotate(RotationAhead(frequencies, position, 1, true), queries);
  const Matrix r = RotationAt(frequencies, d, position, true);
  std::vector<double> logits;
  for (int i = 0; i < rows; ++i) {
    double dot = 0;
    for (int a = 0; a < d; ++a) {
      for (int b = 0; b < d; ++b) dot += r[a][b] * q[b] * keys[i * d + a];
    }
    logits.push_back(dot / std::sqrt(double(d)));
  }
  const std::vector<double> expected = Softmax(logits);
  const std::vector<float> scores = ExpectedAttention({&queries, 1}, keys, ones);
  for (int i = 0; i < rows; ++i) EXPECT_NEAR(scores[i], expected[i], 1e-6);
}

TEST(ExpectedAttentionTest, ScoresEqualTheFormulaOverAGroup) {
  const int d = 4, rows = 9;
  const std::vector<float> keys = Normal(rows * d, 6);
  std::vector<float> norms = Normal(rows, 7);
  for (float& norm : norms) norm = std::abs(norm);
  const std::vector<QueryDistribution> group = {DistributionOfQueries(Normal(20 * d, 8), d),
                                                DistributionOfQueries(Normal(20 * d, 9), d)};
  std::vector<double> expected(rows, 0.0);
  for (const QueryDistribution& queries : group) {
    std::vector<double> logits;
    for (int i = 0; i < rows; ++i) {
      double logit = 0;
      for (int a = 0; a < d; ++a) {
        logit += queries.mean[a] * keys[i * d + a] / 2;  // sqrt(4)
        for (int b = 0; b < d; ++b) {
          logit += keys[i * d + a] * queries.covariance[a * d + b] * keys[i * d + b] / 8;
        }
      }
      logits.push_back(logit);
    }
    const std::vector<double> row = Softmax(logits);
    for (int i = 0; i < rows; ++i) expected[i] += row[i] / 2;
  }
  const std::vector<float> scores = ExpectedAttention(group, keys, norms);
  for (int i = 0; i < rows; ++i) EXPECT_NEAR(scores[i], expected[i] * norms[i], 1e-6);
}

TEST(ExpectedAttentionTest, TheFormulaIsTheMeanOverGaussianQueries) {
  // One dimension: q ~ N(0.4, 0.8^2), keys 1 and -0.5; E exp(qk) by a fine sum over the density.
  QueryDistribution queries;
  queries.mean = {0.4};
  queries.covariance = {0.64};
  std::vector<double> expected;
  for (const double key : {1.0, -0.5}) {
    double sum = 0;
    for (int i = -8000; i < 8000; ++i) {
      const double q = 1e-3 * i;
      sum += 1e-3 * std::exp(q * key - 0.5 * (q - 0.4) * (q - 0.4) / 0.64) / (0.8 * std::sqrt(2 * M_PI));
    }
    expected.push_back(sum);
  }
  const std::vector<float> scores = ExpectedAttention({&queries, 1}, {1.0f, -0.5f}, {1.0f, 1.0f});
  EXPECT_NEAR(scores[0], expected[0] / (expected[0] + expected[1]), 1e-6);
}

TEST(ExpectedAttentionTest, LargeKeysDoNotOverflow) {
  QueryDistribution queries;
  queries.mean = {1.0};
  queries.covariance = {1.0};
  EXPECT_EQ(ExpectedAttention({&queries, 1}, {100.0f, 10.0f}, {1.0f, 1.0f}), (std::vector<float>{1, 0}));
}

TEST(ExpectedAttentionTest, NoRowsGiveNoScoresAndNoNumbersDoNotCrash) {
  const QueryDistribution queries = DistributionOfQueries({1.0f, 2.0f}, 2);
  EXPECT_TRUE(ExpectedAttention({&queries, 1}, {}, {}).empty());
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(ExpectedAttention({&queries, 1}, {nan, 1.0f, 1.0f, 1.0f}, {1.0f, 1.0f}).size(), 2u);
}

}  // namespace
}  // namespace tidepool
