#include "worker/engine/sampler.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <limits>
#include <utility>

#include "base/check.h"
#include "worker/engine/portable_exp.h"

namespace tidepool {
namespace {

constexpr float kLargestFloat = std::numeric_limits<float>::max();

absl::Status NothingToChoose() { return absl::InternalError("no token can be chosen: every logit is NaN or -inf"); }

// The index of the weight on which `unit` of the total falls; never one of weight 0 (their sum is not 0).
size_t Pick(absl::Span<const double> weights, double total, double unit) {
  const double target = unit * total;
  double sum = 0;
  size_t last = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] == 0) continue;
    sum += weights[i];
    last = i;
    if (sum > target) break;
  }
  return last;
}

}  // namespace

RandomBits::RandomBits(uint64_t seed) {
  for (uint64_t& word : state_) {
    seed += 0x9e3779b97f4a7c15;
    uint64_t z = seed;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    word = z ^ (z >> 31);
  }
}

uint64_t RandomBits::Next() {
  const uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
  const uint64_t shifted = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= shifted;
  state_[3] = std::rotl(state_[3], 45);
  return result;
}

double RandomBits::NextUnit() { return static_cast<double>(Next() >> 11) * 0x1p-53; }

Sampler::Sampler(SamplingParams params, int vocabulary)
    : params_(std::move(params)), vocabulary_(vocabulary), random_(params_.seed) {
  TIDEPOOL_CHECK(vocabulary > 0);
  for (const auto& [token, bias] : params_.logit_bias) TIDEPOOL_CHECK(token >= 0 && token < vocabulary);
}

void Sampler::Observe(absl::Span<const int32_t> tokens) {
  for (const int32_t token : tokens) {
    TIDEPOOL_CHECK(token >= 0 && token < vocabulary_);
    generated_.try_emplace(token, 0);
  }
}

void Sampler::Accept(int32_t token) {
  TIDEPOOL_CHECK(token >= 0 && token < vocabulary_);
  ++generated_[token];
}

absl::StatusOr<int32_t> Sampler::Sample(absl::Span<const float> logits, SamplerScratch& scratch) {
  TIDEPOOL_CHECK(logits.size() == static_cast<size_t>(vocabulary_));
  const absl::Span<const float> adjusted = adjusts() ? Adjust(logits, scratch.logits) : logits;
  const int32_t best = ArgMax(adjusted);
  if (best < 0) return NothingToChoose();
  const int32_t token = params_.temperature == 0 ? best : Draw(adjusted, best, scratch);
  Accept(token);
  return token;
}

int Sampler::best_needed() const {
  if (adjusts()) return 0;
  if (params_.temperature == 0) return 1;
  return cuts_top_k() ? params_.top_k : 0;
}

absl::StatusOr<int32_t> Sampler::Sample(absl::Span<const TokenLogit> best, SamplerScratch& scratch) {
  TIDEPOOL_CHECK(best_needed() > 0);
  if (best.empty()) return NothingToChoose();
  int32_t token = best[0].token;
  if (params_.temperature != 0) {
    const auto count = std::min(best.size(), static_cast<size_t>(params_.top_k));
    token = DrawFromTopK(best.subspan(0, count), std::min(best[0].logit, kLargestFloat), scratch.weights);
  }
  Accept(token);
  return token;
}

bool Sampler::adjusts() const {
  return !params_.logit_bias.empty() || params_.repetition_penalty != 1 || params_.presence_penalty != 0 ||
         params_.frequency_penalty != 0;
}

absl::Span<const float> Sampler::Adjust(absl::Span<const float> logits, std::vector<float>& out) const {
  out.assign(logits.begin(), logits.end());
  for (const auto& [token, bias] : params_.logit_bias) out[token] += bias;
  if (params_.repetition_penalty == 1 && params_.presence_penalty == 0 && params_.frequency_penalty == 0) return out;
  for (const auto& [token, count] : generated_) {
    float& logit = out[token];
    logit = logit < 0 ? logit * params_.repetition_penalty : logit / params_.repetition_penalty;
    if (count > 0) logit -= params_.presence_penalty + params_.frequency_penalty * static_cast<float>(count);
  }
  return out;
}

// Softmax numerator relative to the best token's, which has weight 1.
double Sampler::Weight(float logit, double largest) const {
  const float finite = logit > kLargestFloat ? kLargestFloat : logit;  // keeps NaN, whose weight is 0
  return PortableExp((finite - largest) / params_.temperature);
}

int32_t Sampler::Draw(absl::Span<const float> logits, int32_t best, SamplerScratch& scratch) {
  const double largest = std::min(logits[best], kLargestFloat);
  const bool cuts_by_rank = cuts_top_k() || params_.top_p < 1;
  return cuts_by_rank ? DrawFromBest(logits, largest, scratch) : DrawFromAll(logits, largest, scratch);
}

int32_t Sampler::DrawFromAll(absl::Span<const float> logits, double largest, SamplerScratch& scratch) {
  std::vector<double>& weights = scratch.weights;
  double total = SumWeights(logits, largest, weights);
  if (params_.min_p > 0) {
    total = 0;
    for (double& weight : weights) {
      if (weight < params_.min_p) weight = 0;
      total += weight;
    }
  }
  return static_cast<int32_t>(Pick(weights, total, random_.NextUnit()));
}

// The sum of all weights, in the order of the ids: the whole of which top_p is a part.
double Sampler::SumWeights(absl::Span<const float> logits, double largest, std::vector<double>& weights) const {
  weights.resize(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) weights[i] = Weight(logits[i], largest);
  double sum = 0;
  for (const double weight : weights) sum += weight;
  return sum;
}

// Of a weight that top_p is a part of.
double Sampler::Needed(double whole) const {
  return params_.top_p < 1 ? params_.top_p * whole : std::numeric_limits<double>::infinity();
}

int32_t Sampler::DrawFromTopK(absl::Span<const TokenLogit> best, double largest, std::vector<double>& weights) {
  double whole = 0, total = 0;
  for (const TokenLogit& token : best) whole += Weight(token.logit, largest);
  CutByWeight(best, largest, Needed(whole), weights, total);
  return best[Pick(weights, total, random_.NextUnit())].token;
}

int32_t Sampler::DrawFromBest(absl::Span<const float> logits, double largest, SamplerScratch& scratch) {
  const std::vector<TokenLogit>& best = scratch.candidates;
  std::vector<double>& weights = scratch.weights;
  if (cuts_top_k()) {
    TopLogits(logits, params_.top_k, scratch.candidates);
    return DrawFromTopK(best, largest, weights);
  }
  const double needed = Needed(SumWeights(logits, largest, weights));
  // A few hundred tokens nearly always reach top_p; eight times as many whenever they do not.
  for (int limit = std::min(256, vocabulary_);;
       limit = static_cast<int>(std::min<int64_t>(int64_t{8} * limit, vocabulary_))) {
    TopLogits(logits, limit, scratch.candidates);
    double total = 0;
    const bool cut = CutByWeight(best, largest, needed, weights, total);
    if (cut || limit == vocabulary_) return best[Pick(weights, total, random_.NextUnit())].token;
  }
}

// Weights of the leading tokens of `best` up to where top_p is reached or min_p not; false when neither happened.
bool Sampler::CutByWeight(absl::Span<const TokenLogit> best, double largest, double needed,
                          std::vector<double>& weights, double& total) const {
  weights.clear();
  for (const TokenLogit& token : best) {
    const double weight = Weight(token.logit, largest);
    if (weight < params_.min_p) return true;
    weights.push_back(weight);
    total += weight;
    if (total >= needed) return true;
  }
  return false;
}

}  // namespace tidepool
