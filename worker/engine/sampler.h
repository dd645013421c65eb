// Chooses the next token of one sequence from its logits. Values are copyable; a copy draws the same tokens. Not
// thread-safe.
//
//   Sampler sampler(params, vocabulary);   // params passed ValidateSampling
//   sampler.Observe(prompt);
//   TP_ASSIGN_OR_RETURN(int32_t token, sampler.Sample(logits, scratch));
//
// Order of the steps: sampling_params.h. The arithmetic is double, in a fixed order, without the C library: equal
// seeds, params, histories and logits give equal tokens on every machine.
#ifndef TIDEPOOL_WORKER_ENGINE_SAMPLER_H_
#define TIDEPOOL_WORKER_ENGINE_SAMPLER_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/engine/sampling_params.h"
#include "worker/engine/top_logits.h"

namespace tidepool {

// Buffers that one thread lends to all its samplers; what they hold between calls means nothing.
struct SamplerScratch {
  std::vector<float> logits;
  std::vector<double> weights;
  std::vector<TokenLogit> candidates;
};

// xoshiro256** of Blackman and Vigna (2018), its state filled by SplitMix64 from the seed: ours, so that no library
// decides what a seed means.
class RandomBits {
 public:
  explicit RandomBits(uint64_t seed);
  uint64_t Next();
  double NextUnit();  // [0, 1), 53 bits

 private:
  std::array<uint64_t, 4> state_;
};

class Sampler {
 public:
  // Checks that params hold what ValidateSampling demands of tokens.
  Sampler(SamplingParams params, int vocabulary);

  // Tokens that are there but were not generated: the prompt, earlier turns. They count for repetition_penalty only.
  void Observe(absl::Span<const int32_t> tokens);
  // A generated token that Sample did not choose (forced tokens). Sample calls it by itself.
  void Accept(int32_t token);

  // logits: [vocabulary]. Greedy: the best token, ties to the lower id, no draw. Else exactly one draw. NaN counts as
  // -inf, +inf as the largest float; Internal when no logit is above -inf (the model computed nonsense).
  absl::StatusOr<int32_t> Sample(absl::Span<const float> logits, SamplerScratch& scratch);
  // So many of the best logits tell Sample all it goes by; 0: it needs all of them.
  int best_needed() const;
  // The same, of the best_needed() best in the order of TopLogits, or more.
  absl::StatusOr<int32_t> Sample(absl::Span<const TokenLogit> best, SamplerScratch& scratch);

 private:
  bool adjusts() const;
  bool cuts_top_k() const { return params_.top_k > 0 && params_.top_k < vocabulary_; }
  absl::Span<const float> Adjust(absl::Span<const float> logits, std::vector<float>& out) const;
  int32_t Draw(absl::Span<const float> logits, int32_t best, SamplerScratch& scratch);
  int32_t DrawFromAll(absl::Span<const float> logits, double largest, SamplerScratch& scratch);
  int32_t DrawFromBest(absl::Span<const float> logits, double largest, SamplerScratch& scratch);
  int32_t DrawFromTopK(absl::Span<const TokenLogit> best, double largest, std::vector<double>& weights);
  double Needed(double whole) const;
  bool CutByWeight(absl::Span<const TokenLogit> best, double largest, double needed, std::vector<double>& weights,
                   double& total) const;
  double SumWeights(absl::Span<const float> logits, double largest, std::vector<double>& weights) const;
  double Weight(float logit, double largest) const;

  SamplingParams params_;
  int vocabulary_;
  RandomBits random_;
  absl::flat_hash_map<int32_t, uint32_t> generated_;  // every token seen, and how often it was generated
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_ENGINE_SAMPLER_H_
