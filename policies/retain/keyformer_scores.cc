#include "policies/retain/keyformer_scores.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace tidepool {
namespace {

// The finalizer of SplitMix64 (Steele, Lea and Flood 2014): every bit of x changes half the bits of the result.
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

}  // namespace

double GumbelNoise(const KeyformerNoise& noise, int64_t query_position, int64_t key_position) {
  uint64_t bits = Mix(noise.seed);
  bits = Mix(bits ^ static_cast<uint64_t>(noise.layer));
  bits = Mix(bits ^ static_cast<uint64_t>(noise.query_head));
  bits = Mix(bits ^ static_cast<uint64_t>(query_position));
  bits = Mix(bits ^ static_cast<uint64_t>(key_position));
  // The middles of 2^52 equal parts: never 0 or 1.
  const double uniform = (static_cast<double>(bits >> 12) + 0.5) * 0x1p-52;
  return -std::log(-std::log(uniform));
}

double KeyformerTemperature(int64_t step) { return 1.0 + 0.01 * static_cast<double>(step); }

std::vector<float> KeyformerRow(absl::Span<const float> logits, absl::Span<const int32_t> positions,
                                const KeyformerNoise& noise, int64_t query_position, double temperature) {
  TIDEPOOL_CHECK(!logits.empty() && logits.size() == positions.size() && temperature > 0);
  std::vector<double> row(logits.size());
  for (size_t i = 0; i < row.size(); ++i) {
    row[i] = (logits[i] + GumbelNoise(noise, query_position, positions[i])) / temperature;
  }
  const double largest = *std::max_element(row.begin(), row.end());
  double sum = 0;
  for (double& x : row) sum += x = std::exp(x - largest);
  std::vector<float> out;
  out.reserve(row.size());
  for (double x : row) out.push_back(static_cast<float>(x / sum));
  return out;
}

}  // namespace tidepool
