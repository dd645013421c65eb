// The whole forward pass against logits that transformers computed. With float32 weights and float32 keys and values
// nothing is quantised, so every logit must agree to 1e-3 (the references' own noise is below 1e-4); as shipped (int8
// activations, float16 keys and values) the measure is what tests/data/smollm2/README.md says of such an engine.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>

#include "tests/support/paths.h"
#include "tests/worker/model_oracle/oracle_data.h"
#include "worker/backend/backend.h"
#include "worker/engine/logprobs.h"
#include "worker/engine/top_logits.h"
#include "worker/model/model.h"

namespace tidepool {
namespace {

constexpr float kTolerance = 1e-3f;

class Forward {
 public:
  Forward(const std::string& path, bool exact) {
    auto model = Model::Load(path);
    if (!model.ok()) throw std::runtime_error(std::string(model.status().message()));
    model_ = *std::move(model);
    BackendOptions options;
    options.kv_bytes = size_t{256} << 20;
    options.kv_type = exact ? KvType::kF32 : KvType::kF16;
    options.f32_weights = exact;
    auto backend = CreateCpuBackend(model_, options);
    if (!backend.ok()) throw std::runtime_error(std::string(backend.status().message()));
    backend_ = *std::move(backend);
  }

  int vocabulary() const { return model_->config().vocabulary; }

  // [tokens][vocabulary], the prompt fed in steps of chunk_tokens.
  std::vector<float> Logits(const std::vector<int32_t>& tokens, int chunk_tokens) {
    const ModelConfig& config = model_->config();
    SequenceRows rows(&backend_->pool(), config.layers, config.kv_heads);
    std::vector<float> logits(tokens.size() * config.vocabulary);
    const int32_t count = static_cast<int32_t>(tokens.size());
    for (int32_t first = 0; first < count; first += chunk_tokens) {
      const int32_t size = std::min(chunk_tokens, count - first);
      rows.Extend(first, size);
      StepSlice slice;
      slice.rows = &rows;
      slice.tokens = absl::MakeConstSpan(tokens).subspan(first, size);
      slice.first_position = first;
      slice.logits_rows = size;
      slice.logits = &logits[static_cast<size_t>(first) * config.vocabulary];
      backend_->Step({&slice, 1}, nullptr);
    }
    return logits;
  }

 private:
  std::shared_ptr<const Model> model_;
  std::unique_ptr<Backend> backend_;
};

absl::Span<const float> Row(const std::vector<float>& logits, int vocabulary, size_t position) {
  return absl::MakeConstSpan(logits).subspan(position * vocabulary, vocabulary);
}

float LargestDifference(absl::Span<const float> a, absl::Span<const float> b) {
  float largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const float difference = std::abs(a[i] - b[i]);
    if (!(difference <= largest)) largest = difference;  // NaN shows
  }
  return largest;
}

// Along the reference's tokens: the same best token wherever it leads by more than `margin`. Returns how many were
// compared.
int ExpectSameChoices(Forward& forward, const test::GreedyPath& path, float margin) {
  std::vector<int32_t> tokens = path.prompt;
  tokens.insert(tokens.end(), path.new_ids.begin(), path.new_ids.end() - 1);
  const std::vector<float> logits = forward.Logits(tokens, 128);
  int compared = 0;
  for (size_t i = 0; i < path.new_ids.size(); ++i) {
    if (path.margins[i] <= margin) continue;
    EXPECT_EQ(ArgMax(Row(logits, forward.vocabulary(), path.prompt.size() - 1 + i)), path.new_ids[i])
        << path.name << ", new token " << i;
    ++compared;
  }
  return compared;
}

double MeanNll(const std::vector<float>& logits, int vocabulary, const std::vector<int32_t>& ids) {
  double sum = 0;
  for (size_t i = 1; i < ids.size(); ++i) {
    const absl::Span<const float> row = Row(logits, vocabulary, i - 1);
    sum += LogSumExp(row) - row[ids[i]];
  }
  return sum / static_cast<double>(ids.size() - 1);
}

// Largest difference of the reference's best 20 logits over its positions.
float TopDifference(const std::vector<float>& logits, int vocabulary, const test::SmolPrompt& prompt) {
  float largest = 0;
  for (size_t i = 0; i < prompt.positions.size(); ++i) {
    const absl::Span<const float> row = Row(logits, vocabulary, prompt.positions[i]);
    for (size_t j = 0; j < prompt.top_ids[i].size(); ++j) {
      largest = std::max(largest, std::abs(row[prompt.top_ids[i][j]] - prompt.top_logits[i][j]));
    }
  }
  return largest;
}

double KlDivergence(absl::Span<const float> reference, absl::Span<const float> logits) {
  const double p_sum = LogSumExp(reference), q_sum = LogSumExp(logits);
  double divergence = 0;
  for (size_t i = 0; i < reference.size(); ++i) {
    const double log_p = reference[i] - p_sum;
    divergence += std::exp(log_p) * (log_p - (logits[i] - q_sum));
  }
  return divergence;
}

std::string SmolPath() { return test::ModelPath("SmolLM2-135M-Instruct.Q4_1.gguf"); }

TEST(TinyModelsTest, EveryLogitOfEveryArchitectureAgrees) {
  const std::vector<test::TinyModel> models = test::ReadTinyModels();
  ASSERT_FALSE(models.empty());
  for (const test::TinyModel& model : models) {
    Forward forward(model.path, true);
    ASSERT_EQ(forward.vocabulary(), model.vocabulary);
    for (const test::TinyPrompt& prompt : model.prompts) {
      EXPECT_LT(LargestDifference(forward.Logits(prompt.ids, 512), prompt.logits), kTolerance) << model.name;
    }
  }
}

TEST(TinyModelsTest, AnyChunksGiveTheSameBits) {
  for (const test::TinyModel& model : test::ReadTinyModels()) {
    for (const bool exact : {true, false}) {
      Forward forward(model.path, exact);
      const std::vector<int32_t>& ids = model.prompts[0].ids;
      const std::vector<float> whole = forward.Logits(ids, 512);
      for (const int chunk : {1, 7, 64}) {
        const std::vector<float> chunked = forward.Logits(ids, chunk);
        EXPECT_EQ(std::memcmp(chunked.data(), whole.data(), whole.size() * sizeof(float)), 0)
            << model.name << ", chunks of " << chunk << (exact ? ", float32" : ", as shipped");
      }
    }
  }
}

TEST(TinyModelsTest, GreedyChoicesAreTheReferences) {
  int compared = 0;
  for (const test::TinyModel& model : test::ReadTinyModels()) {
    Forward forward(model.path, true);
    compared += ExpectSameChoices(forward, model.greedy, 2 * kTolerance);
  }
  EXPECT_GT(compared, 0);  // of 128 in tests/data
}

TEST(SmolLm2Test, EveryLogitAgreesInFloat32) {
  Forward forward(SmolPath(), true);
  for (const char* name : {"p5", "p60", "p500"}) {
    const test::SmolPrompt prompt = test::ReadSmolPrompt(name);
    const std::vector<float> logits = forward.Logits(prompt.ids, 256);
    const int vocabulary = forward.vocabulary();
    EXPECT_LT(LargestDifference(Row(logits, vocabulary, prompt.ids.size() - 1), prompt.last_logits), kTolerance)
        << name;
    EXPECT_LT(TopDifference(logits, vocabulary, prompt), kTolerance) << name;
    EXPECT_NEAR(MeanNll(logits, vocabulary, prompt.ids), prompt.mean_nll, 1e-4) << name;
  }
}

TEST(SmolLm2Test, GreedyChoicesAreTheReferencesInFloat32) {
  Forward forward(SmolPath(), true);
  int compared = 0;
  for (const test::GreedyPath& path : test::ReadSmolGreedy())
    compared += ExpectSameChoices(forward, path, 2 * kTolerance);
  EXPECT_GT(compared, 0);  // all 384 of tests/data: the smallest margin there is 0.0098
}

// Two logits may each be off by what the top 20 are off at most (below): a lead of more than twice that decides.
TEST(SmolLm2Test, AsShippedItChoosesTheReferencesTokensBeyondTheTolerance) {
  Forward forward(SmolPath(), false);
  int compared = 0;
  for (const test::GreedyPath& path : test::ReadSmolGreedy()) compared += ExpectSameChoices(forward, path, 1.2f);
  EXPECT_GT(compared, 0);  // 200 of the 384 of tests/data
}

// Limits: what llama.cpp, which quantises activations too, was measured to need (README of the data), and a little
// more.
TEST(SmolLm2Test, AsShippedItIsAsCloseAsInt8ActivationsAllow) {
  Forward forward(SmolPath(), false);
  for (const char* name : {"p5", "p60", "p500"}) {
    const test::SmolPrompt prompt = test::ReadSmolPrompt(name);
    const std::vector<float> logits = forward.Logits(prompt.ids, 256);
    const int vocabulary = forward.vocabulary();
    const absl::Span<const float> last = Row(logits, vocabulary, prompt.ids.size() - 1);
    EXPECT_LT(KlDivergence(prompt.last_logits, last), 0.01) << name;
    EXPECT_LT(TopDifference(logits, vocabulary, prompt), 0.6f) << name;
    EXPECT_EQ(ArgMax(last), ArgMax(prompt.last_logits)) << name;
    // The mean of a few tokens varies with how activations happen to be rounded: of p5, which predicts four, by 0.013
    // to 0.029 from one order of operations to another, of p500 by 0.002 to 0.01.
    const double tolerance = 0.02 + 0.08 / static_cast<double>(prompt.ids.size() - 1);
    EXPECT_NEAR(MeanNll(logits, vocabulary, prompt.ids), prompt.mean_nll, tolerance) << name;
  }
}

}  // namespace
}  // namespace tidepool
