// Loading whole models: the numbers of each architecture, and an error naming the key or tensor for each thing that is
// wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/support/paths.h"
#include "tests/worker/model/gguf_builder.h"
#include "worker/model/model.h"

namespace tidepool {
namespace {

using test::GgufBuilder;
using test::TinyModel;
using testing::HasSubstr;

absl::StatusOr<std::shared_ptr<const Model>> LoadBytes(const std::string& bytes) {
  const std::string path = testing::TempDir() + "/model_load_test_" + std::to_string(getpid()) + ".gguf";
  std::ofstream(path, std::ios::binary) << bytes;
  auto model = Model::Load(path);
  std::remove(path.c_str());  // a mapping of it lives on
  return model;
}

absl::StatusOr<std::shared_ptr<const Model>> LoadModel(const GgufBuilder& builder) {
  return LoadBytes(builder.Build());
}

TEST(ModelLoadTest, EachArchitectureHasItsRotationBiasesAndNorms) {
  const auto llama = LoadModel(TinyModel("llama"));
  ASSERT_TRUE(llama.ok()) << llama.status();
  EXPECT_FALSE((*llama)->config().rope_neox);
  EXPECT_TRUE((*llama)->layer(0).q_bias.empty());
  EXPECT_TRUE((*llama)->layer(0).q_norm.empty());
  const auto qwen2 = LoadModel(TinyModel("qwen2"));
  ASSERT_TRUE(qwen2.ok()) << qwen2.status();
  EXPECT_TRUE((*qwen2)->config().rope_neox);
  EXPECT_TRUE((*qwen2)->config().qkv_bias);
  EXPECT_EQ((*qwen2)->layer(0).k_bias.columns, 16);
  const auto qwen3 = LoadModel(TinyModel("qwen3"));
  ASSERT_TRUE(qwen3.ok()) << qwen3.status();
  EXPECT_TRUE((*qwen3)->config().qk_norm);
  EXPECT_EQ((*qwen3)->layer(0).k_norm.columns, 16);
}

TEST(ModelLoadTest, KeyLengthNeedNotBeWidthByHeads) {
  GgufBuilder builder = TinyModel("qwen3");
  builder.U32("qwen3.attention.key_length", 32).U32("qwen3.attention.value_length", 32);
  for (const char* name : {"attn_q", "attn_k", "attn_v", "attn_output", "attn_q_norm", "attn_k_norm"}) {
    builder.EraseTensor(std::string("blk.0.") + name + ".weight");
  }
  builder.AddF32("blk.0.attn_q.weight", {32, 64})
      .AddF32("blk.0.attn_k.weight", {32, 32})
      .AddF32("blk.0.attn_v.weight", {32, 32});
  builder.AddF32("blk.0.attn_output.weight", {64, 32}).AddF32("blk.0.attn_q_norm.weight", {32});
  builder.AddF32("blk.0.attn_k_norm.weight", {32});
  const auto model = LoadModel(builder);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->config().head_dim, 32);
  EXPECT_EQ((*model)->config().rope_dims, 32);
}

TEST(ModelLoadTest, OutputMatrixOfItsOwnIsUsed) {
  GgufBuilder builder = TinyModel("llama");
  builder.AddF32("output.weight", {32, 260});
  const auto model = LoadModel(builder);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->output().name, "output.weight");
}

TEST(ModelLoadTest, FingerprintFollowsWhatDeterminesKeysAndValues) {
  const std::string base = LoadModel(TinyModel("llama")).value()->fingerprint();
  GgufBuilder weights = TinyModel("llama");
  weights.Find("blk.0.attn_k.weight").data[5] ^= 1;
  EXPECT_NE(LoadModel(weights).value()->fingerprint(), base);
  GgufBuilder rope = TinyModel("llama");
  rope.F32("llama.rope.freq_base", 10001);
  EXPECT_NE(LoadModel(rope).value()->fingerprint(), base);
  GgufBuilder output = TinyModel("llama");  // comes after the last keys and values
  output.Find("output_norm.weight").data = GgufBuilder::Bytes(2.0f) + output.Find("output_norm.weight").data.substr(4);
  EXPECT_EQ(LoadModel(output).value()->fingerprint(), base);
  GgufBuilder name = TinyModel("llama");
  name.String("general.name", "renamed");
  EXPECT_EQ(LoadModel(name).value()->fingerprint(), base);
}

TEST(ModelLoadTest, UnknownChatTemplateIsReportedOnlyWhenAskedFor) {
  GgufBuilder builder = TinyModel("llama");
  builder.String("tokenizer.chat_template", "{{ something else }}");
  const auto model = LoadModel(builder);
  ASSERT_TRUE(model.ok()) << model.status();
  const absl::Status status = (*model)->chat_template().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), HasSubstr("{{ something else }}"));
}

TEST(ModelLoadTest, TheTinyModelsOfTheOracleLoad) {
  const auto cases = nlohmann::json::parse(test::ReadFile(test::DataPath("tiny_models/cases.json")));
  ASSERT_EQ(cases.size(), 8u);
  for (const auto& row : cases) {
    const auto model = Model::Load(test::DataPath("tiny_models/" + row["model"].get<std::string>()));
    ASSERT_TRUE(model.ok()) << model.status();
    EXPECT_EQ((*model)->config().vocabulary, row["vocabulary"].get<int>());
    const auto chat = (*model)->chat_template();
    ASSERT_TRUE(chat.ok()) << chat.status();
    EXPECT_EQ((*chat)->name(), "chatml");
  }
}

// Frequencies of the rotary embedding.

TEST(RopeTest, LinearScalingDividesEveryFrequency) {
  for (const bool old_key : {false, true}) {
    GgufBuilder builder = TinyModel("llama");
    if (old_key) {
      builder.F32("llama.rope.scale_linear", 4);
    } else {
      builder.String("llama.rope.scaling.type", "linear").F32("llama.rope.scaling.factor", 4);
    }
    const ModelConfig config = LoadModel(builder).value()->config();
    ASSERT_EQ(config.rope_frequencies.size(), 8u);
    for (int i = 0; i < 8; ++i) EXPECT_FLOAT_EQ(config.rope_frequencies[i], std::pow(10000.0, -i / 8.0) / 4);
    EXPECT_EQ(config.rope_magnitude, 1.0f);
  }
}

TEST(RopeTest, FactorsOfLlama3DivideTheirPair) {
  GgufBuilder builder = TinyModel("llama");
  builder.AddF32("rope_freqs.weight", {8});  // 0.01, 0.02, ...
  const ModelConfig config = LoadModel(builder).value()->config();
  for (int i = 0; i < 8; ++i)
    EXPECT_FLOAT_EQ(config.rope_frequencies[i], std::pow(10000.0, -i / 8.0) / (0.01f * (1 + i)));
}

TEST(RopeTest, YarnKeepsFastPairsAndInterpolatesSlowOnes) {
  GgufBuilder builder = TinyModel("qwen2");
  builder.String("qwen2.rope.scaling.type", "yarn").F32("qwen2.rope.scaling.factor", 4);
  builder.U32("qwen2.rope.scaling.original_context_length", 4096).U32("qwen2.context_length", 16384);
  const ModelConfig config = LoadModel(builder).value()->config();
  // Pair i turns 4096 * 10000^(-i/8) / 2 pi times: more than 32 for i <= 2, less than 1 for i >= 6 (floor 2, ceiling
  // 6).
  for (int i = 0; i < 8; ++i) {
    const double frequency = std::pow(10000.0, -i / 8.0);
    const double ramp = std::clamp((i - 2) / 4.0, 0.0, 1.0);
    EXPECT_FLOAT_EQ(config.rope_frequencies[i], frequency / 4 * ramp + frequency * (1 - ramp)) << i;
  }
  EXPECT_FLOAT_EQ(config.rope_magnitude, 1 + 0.1 * std::log(4.0));
}

TEST(RopeTest, PartOfAHeadMayTurn) {
  GgufBuilder builder = TinyModel("llama");
  builder.U32("llama.rope.dimension_count", 8);
  const ModelConfig config = LoadModel(builder).value()->config();
  ASSERT_EQ(config.rope_frequencies.size(), 4u);
  EXPECT_FLOAT_EQ(config.rope_frequencies[1], 0.1f);
}

struct WrongModel {
  const char* name;
  std::function<void(GgufBuilder&)> spoil;
  absl::StatusCode code;
  const char* message;  // part of the error
  const char* architecture = "llama";
};

void PrintTo(const WrongModel& model, std::ostream* out) { *out << model.name; }

class WrongModelTest : public testing::TestWithParam<WrongModel> {};

TEST_P(WrongModelTest, IsRefusedByName) {
  GgufBuilder builder = TinyModel(GetParam().architecture);
  GetParam().spoil(builder);
  const auto model = LoadModel(builder);
  ASSERT_FALSE(model.ok());
  EXPECT_EQ(model.status().code(), GetParam().code) << model.status();
  EXPECT_THAT(std::string(model.status().message()), HasSubstr(GetParam().message));
  EXPECT_THAT(std::string(model.status().message()), HasSubstr(".gguf: "));
}

constexpr auto kMissing = absl::StatusCode::kNotFound;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnknown = absl::StatusCode::kUnimplemented;
constexpr auto kLost = absl::StatusCode::kDataLoss;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

const WrongModel kWrongModels[] = {
    {"NoArchitecture", [](GgufBuilder& b) { b.Erase("general.architecture"); }, kMissing,
     "key general.architecture is missing"},
    {"OtherArchitecture", [](GgufBuilder& b) { b.String("general.architecture", "mamba"); }, kUnknown,
     "key general.architecture is \"mamba\"; supported are llama, qwen2, qwen3"},
    {"NoLayerCount", [](GgufBuilder& b) { b.Erase("llama.block_count"); }, kMissing,
     "key llama.block_count is missing"},
    {"NoLayers", [](GgufBuilder& b) { b.U32("llama.block_count", 0); }, kInvalid,
     "key llama.block_count is 0; allowed 1 to"},
    {"MillionsOfLayers", [](GgufBuilder& b) { b.U32("llama.block_count", 4000000000u); }, kInvalid,
     "key llama.block_count is 40000"},
    {"NegativeWidth", [](GgufBuilder& b) { b.I32("llama.embedding_length", -32); }, kInvalid,
     "key llama.embedding_length is -32"},
    {"HugeWidth", [](GgufBuilder& b) { b.U32("llama.embedding_length", 1u << 31); }, kInvalid,
     "key llama.embedding_length"},
    {"WidthIsText", [](GgufBuilder& b) { b.String("llama.embedding_length", "32"); }, kInvalid,
     "key llama.embedding_length is of type string; expected integer"},
    {"NoFeedForward", [](GgufBuilder& b) { b.Erase("llama.feed_forward_length"); }, kMissing,
     "llama.feed_forward_length"},
    {"FeedForwardPerLayer", [](GgufBuilder& b) { b.Array<int32_t>("llama.feed_forward_length", 5, {48}); }, kInvalid,
     "key llama.feed_forward_length is of type array of int32"},
    {"NoContext", [](GgufBuilder& b) { b.U32("llama.context_length", 0); }, kInvalid, "key llama.context_length is 0"},
    {"NoHeads", [](GgufBuilder& b) { b.U32("llama.attention.head_count", 0); }, kInvalid,
     "key llama.attention.head_count is 0"},
    {"HeadsDoNotDivideWidth", [](GgufBuilder& b) { b.U32("llama.attention.head_count", 3); }, kInvalid,
     "key llama.attention.head_count is 3; without llama.attention.key_length it must divide the embedding length 32"},
    {"KvHeadsDoNotDivideHeads",
     [](GgufBuilder& b) {
       b.U32("llama.attention.head_count", 4)
           .U32("llama.attention.head_count_kv", 3)
           .U32("llama.attention.key_length", 16);
     },
     kInvalid, "key llama.attention.head_count_kv is 3; it must divide the 4 query heads"},
    {"MoreKvHeadsThanHeads", [](GgufBuilder& b) { b.U32("llama.attention.head_count_kv", 4); }, kInvalid,
     "key llama.attention.head_count_kv is 4; allowed 1 to 2"},
    {"HeadTooSmall", [](GgufBuilder& b) { b.U32("llama.attention.head_count", 4); }, kInvalid,
     "is 8; allowed are multiples of 16"},
    {"HeadOdd", [](GgufBuilder& b) { b.U32("llama.attention.key_length", 17); }, kInvalid,
     "is 17; allowed are multiples of 16"},
    {"HeadTooLarge", [](GgufBuilder& b) { b.U32("llama.attention.key_length", 512); }, kInvalid,
     "is 512; allowed are multiples"},
    {"ValuesOfAnotherSize", [](GgufBuilder& b) { b.U32("llama.attention.value_length", 32); }, kUnknown,
     "key llama.attention.value_length is 32; it must equal the key length 16"},
    {"NoEpsilon", [](GgufBuilder& b) { b.Erase("llama.attention.layer_norm_rms_epsilon"); }, kMissing,
     "layer_norm_rms_epsilon"},
    {"EpsilonNan", [](GgufBuilder& b) { b.F32("llama.attention.layer_norm_rms_epsilon", kNan); }, kInvalid,
     "key llama.attention.layer_norm_rms_epsilon is nan"},
    {"EpsilonZero", [](GgufBuilder& b) { b.F32("llama.attention.layer_norm_rms_epsilon", 0); }, kInvalid,
     "layer_norm_rms_epsilon is 0"},
    {"EpsilonNegative", [](GgufBuilder& b) { b.F32("llama.attention.layer_norm_rms_epsilon", -1e-5f); }, kInvalid,
     "is -1"},
    {"RopeBaseInfinite", [](GgufBuilder& b) { b.F32("llama.rope.freq_base", kInfinity); }, kInvalid,
     "key llama.rope.freq_base is inf"},
    {"RopeBaseZero", [](GgufBuilder& b) { b.F32("llama.rope.freq_base", 0); }, kInvalid,
     "key llama.rope.freq_base is 0"},
    {"RopeDimsOdd", [](GgufBuilder& b) { b.U32("llama.rope.dimension_count", 15); }, kInvalid,
     "dimension_count is 15; it must be even"},
    {"RopeDimsTooMany", [](GgufBuilder& b) { b.U32("llama.rope.dimension_count", 32); }, kInvalid,
     "dimension_count is 32; allowed 2 to 16"},
    {"RopeScalingUnknown", [](GgufBuilder& b) { b.String("llama.rope.scaling.type", "longrope"); }, kUnknown,
     "key llama.rope.scaling.type is \"longrope\"; supported are none, linear, yarn"},
    {"RopeFactorMissing", [](GgufBuilder& b) { b.String("llama.rope.scaling.type", "linear"); }, kMissing,
     "llama.rope.scaling.factor"},
    {"RopeFactorZero",
     [](GgufBuilder& b) { b.String("llama.rope.scaling.type", "yarn").F32("llama.rope.scaling.factor", 0); }, kInvalid,
     "key llama.rope.scaling.factor is 0"},
    {"RopeFreqsShape", [](GgufBuilder& b) { b.AddF32("rope_freqs.weight", {16}); }, kInvalid,
     "tensor rope_freqs.weight is F32 1 x 16; expected F32 1 x 8"},
    {"RopeFreqsZero",
     [](GgufBuilder& b) {
       b.AddF32("rope_freqs.weight", {8});
       b.Find("rope_freqs.weight").data.replace(4, 4, 4, '\0');
     },
     kInvalid, "tensor rope_freqs.weight[1] is 0"},
    {"Experts", [](GgufBuilder& b) { b.U32("llama.expert_count", 8); }, kUnknown, "key llama.expert_count is 8"},
    {"SlidingWindow", [](GgufBuilder& b) { b.U32("llama.attention.sliding_window", 64); }, kUnknown,
     "key llama.attention.sliding_window is 64"},
    {"VocabularySizeDiffers", [](GgufBuilder& b) { b.U32("llama.vocab_size", 261); }, kInvalid,
     "key llama.vocab_size is 261"},
    {"NoTokens", [](GgufBuilder& b) { b.Strings("tokenizer.ggml.tokens", {}); }, kInvalid,
     "key tokenizer.ggml.tokens has 0 elements"},
    {"NoEmbedding", [](GgufBuilder& b) { b.EraseTensor("token_embd.weight"); }, kMissing,
     "tensor token_embd.weight is missing"},
    {"EmbeddingTransposed",
     [](GgufBuilder& b) {
       b.Find("token_embd.weight").dimensions = {260, 32};
     },
     kInvalid, "tensor token_embd.weight is F32 32 x 260; the keys say 260 x 32"},
    {"NoQuery", [](GgufBuilder& b) { b.EraseTensor("blk.0.attn_q.weight"); }, kMissing,
     "tensor blk.0.attn_q.weight is missing"},
    {"SecondLayerMissing", [](GgufBuilder& b) { b.U32("llama.block_count", 2); }, kMissing,
     "tensor blk.1.attn_norm.weight is missing"},
    {"KeyOfWrongShape",
     [](GgufBuilder& b) {
       b.Find("blk.0.attn_k.weight").dimensions = {16, 32};
     },
     kInvalid, "tensor blk.0.attn_k.weight is F32 32 x 16; the keys say 16 x 32"},
    {"NormInHalfPrecision", [](GgufBuilder& b) { b.Find("output_norm.weight").type = 1; }, kInvalid,
     "tensor output_norm.weight is F16 1 x 32; its type must be F32"},
    {"NormNotANumber",
     [](GgufBuilder& b) { b.Find("blk.0.ffn_norm.weight").data.replace(8, 4, GgufBuilder::Bytes(kNan)); }, kLost,
     "tensor blk.0.ffn_norm.weight[2] is nan"},
    {"TensorThatNobodyReads", [](GgufBuilder& b) { b.AddF32("blk.0.attn_output.bias", {32}); }, kUnknown,
     "tensor blk.0.attn_output.bias is not part of the supported architecture"},
    {"Qwen2WithoutBias", [](GgufBuilder& b) { b.EraseTensor("blk.0.attn_v.bias"); }, kMissing,
     "tensor blk.0.attn_v.bias", "qwen2"},
    {"Qwen3WithoutNorm", [](GgufBuilder& b) { b.EraseTensor("blk.0.attn_k_norm.weight"); }, kMissing, "attn_k_norm",
     "qwen3"},
    {"TokenizerUnknown", [](GgufBuilder& b) { b.String("tokenizer.ggml.model", "rwkv"); }, kUnknown,
     "key tokenizer.ggml.model is \"rwkv\""},
    {"PreTokenizerUnknown", [](GgufBuilder& b) { b.String("tokenizer.ggml.pre", "tekken"); }, kUnknown,
     "key tokenizer.ggml.pre is \"tekken\""},
    {"TokenTypesTooFew",
     [](GgufBuilder& b) {
       b.Array<int32_t>("tokenizer.ggml.token_type", 5, {1, 1});
     },
     kInvalid, "key tokenizer.ggml.token_type has 2 elements for 260 tokens"},
    {"TokenTypeUnknown",
     [](GgufBuilder& b) { b.Array<int32_t>("tokenizer.ggml.token_type", 5, std::vector<int32_t>(260, 9)); }, kInvalid,
     "key tokenizer.ggml.token_type[0] is 9; allowed 1 to 6"},
    {"EosOutOfRange", [](GgufBuilder& b) { b.U32("tokenizer.ggml.eos_token_id", 260); }, kInvalid,
     "key tokenizer.ggml.eos_token_id is 260; allowed 0 to 259"},
    {"MergeWithoutSpace", [](GgufBuilder& b) { b.Strings("tokenizer.ggml.merges", {"ab"}); }, kInvalid,
     "key tokenizer.ggml.merges[0]"},
    {"MergeOfUnknownTokens",
     [](GgufBuilder& b) {
       b.Strings("tokenizer.ggml.merges", {"a b", "b c"});
     },
     kInvalid, "key tokenizer.ggml.merges[1]: a part or the result is no token"},
    {"MergeIntoAControlToken",
     [](GgufBuilder& b) {
       std::vector<int32_t> kinds(260, 1);
       kinds[256] = 3;
       b.Array("tokenizer.ggml.token_type", 5, kinds);
     },
     kInvalid, "key tokenizer.ggml.merges[0]"},
    {"SpmWithoutScores", [](GgufBuilder& b) { b.String("tokenizer.ggml.model", "llama"); }, kMissing,
     "key tokenizer.ggml.scores"},
};

INSTANTIATE_TEST_SUITE_P(All, WrongModelTest, testing::ValuesIn(kWrongModels),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace tidepool
