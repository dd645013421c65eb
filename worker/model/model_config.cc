#include "worker/model/model_config.h"

#include <string_view>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/model/gguf_file.h"
#include "worker/model/rope_frequencies.h"

namespace tidepool {
namespace {

// Far above any published model of these families; they bound what a file can make us allocate.
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxWidth = 1 << 17;
constexpr int64_t kMaxHeads = 4096;
constexpr int64_t kMaxVocabulary = 1 << 22;
constexpr int64_t kMaxContextTokens = int64_t{1} << 30;

// Keys that change the computation in ways we do not follow. Refusing is better than a silently different answer.
absl::Status RefuseUnsupported(const GgufFile& file, const std::string& arch, int context_tokens) {
  TP_ASSIGN_OR_RETURN(const int64_t experts, file.IntegerOr(arch + ".expert_count", 0, 0, 1 << 20));
  if (experts != 0) {
    return file.Error(absl::StatusCode::kUnimplemented, absl::StrCat("key ", arch, ".expert_count is ", experts,
                                                                     "; mixtures of experts are not supported"));
  }
  TP_ASSIGN_OR_RETURN(const int64_t window, file.IntegerOr(arch + ".attention.sliding_window", 0, 0, int64_t{1} << 40));
  if (window != 0 && window < context_tokens) {
    return file.Error(
        absl::StatusCode::kUnimplemented,
        absl::StrCat("key ", arch, ".attention.sliding_window is ", window,
                     "; attention windows shorter than the context (", context_tokens, ") are not supported"));
  }
  return absl::OkStatus();
}

absl::Status ReadHeads(const GgufFile& file, ModelConfig* config) {
  const std::string prefix = config->architecture + ".attention.";
  TP_ASSIGN_OR_RETURN(config->heads, file.Integer(prefix + "head_count", 1, kMaxHeads));
  TP_ASSIGN_OR_RETURN(config->kv_heads, file.IntegerOr(prefix + "head_count_kv", config->heads, 1, config->heads));
  if (config->heads % config->kv_heads != 0) {
    return file.Error(absl::StatusCode::kInvalidArgument,
                      absl::StrCat("key ", prefix, "head_count_kv is ", config->kv_heads, "; it must divide the ",
                                   config->heads, " query heads"));
  }
  if (!file.Has(prefix + "key_length") && config->width % config->heads != 0) {
    return file.Error(absl::StatusCode::kInvalidArgument,
                      absl::StrCat("key ", prefix, "head_count is ", config->heads, "; without ", prefix,
                                   "key_length it must divide the embedding length ", config->width));
  }
  TP_ASSIGN_OR_RETURN(config->head_dim,
                      file.IntegerOr(prefix + "key_length", config->width / config->heads, 1, 1 << 16));
  if (config->head_dim < 16 || config->head_dim > 256 || config->head_dim % 16 != 0) {
    return file.Error(absl::StatusCode::kInvalidArgument,
                      absl::StrCat("the head size (key ", prefix, "key_length, or embedding length / head count) is ",
                                   config->head_dim, "; allowed are multiples of 16 from 16 to 256"));
  }
  TP_ASSIGN_OR_RETURN(const int64_t value_dim, file.IntegerOr(prefix + "value_length", config->head_dim, 1, 1 << 16));
  if (value_dim != config->head_dim) {
    return file.Error(absl::StatusCode::kUnimplemented,
                      absl::StrCat("key ", prefix, "value_length is ", value_dim, "; it must equal the key length ",
                                   config->head_dim));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelConfig> ReadModelConfig(const GgufFile& file) {
  ModelConfig config;
  TP_ASSIGN_OR_RETURN(const std::string_view architecture, file.String("general.architecture"));
  if (architecture != "llama" && architecture != "qwen2" && architecture != "qwen3") {
    return file.Error(absl::StatusCode::kUnimplemented,
                      absl::StrCat("key general.architecture is \"", std::string(architecture.substr(0, 60)),
                                   "\"; supported are llama, qwen2, qwen3"));
  }
  config.architecture = std::string(architecture);
  const std::string prefix = config.architecture + ".";
  TP_ASSIGN_OR_RETURN(const std::string_view name, file.StringOr("general.name", ""));
  config.name = std::string(name);
  TP_ASSIGN_OR_RETURN(config.layers, file.Integer(prefix + "block_count", 1, kMaxLayers));
  TP_ASSIGN_OR_RETURN(config.width, file.Integer(prefix + "embedding_length", 16, kMaxWidth));
  TP_ASSIGN_OR_RETURN(config.ffn_width, file.Integer(prefix + "feed_forward_length", 16, kMaxWidth * 8));
  TP_ASSIGN_OR_RETURN(config.context_tokens, file.Integer(prefix + "context_length", 1, kMaxContextTokens));
  // Below the smallest normal float the epsilon would not guard the division of a zero row.
  TP_ASSIGN_OR_RETURN(config.rms_epsilon, file.Float(prefix + "attention.layer_norm_rms_epsilon", 1e-37, 0.1));
  TP_RETURN_IF_ERROR(ReadHeads(file, &config));
  TP_RETURN_IF_ERROR(RefuseUnsupported(file, config.architecture, config.context_tokens));

  TP_ASSIGN_OR_RETURN(const std::vector<std::string_view> tokens, file.Strings("tokenizer.ggml.tokens"));
  if (tokens.empty() || tokens.size() > static_cast<size_t>(kMaxVocabulary)) {
    return file.Error(absl::StatusCode::kInvalidArgument, absl::StrCat("key tokenizer.ggml.tokens has ", tokens.size(),
                                                                       " elements; allowed 1 to ", kMaxVocabulary));
  }
  config.vocabulary = static_cast<int>(tokens.size());
  const int64_t vocabulary = config.vocabulary;
  TP_RETURN_IF_ERROR(file.IntegerOr(prefix + "vocab_size", vocabulary, vocabulary, vocabulary).status());

  // llama files store the rows of Q and K permuted for neighbouring pairs; qwen files keep the original halves.
  config.rope_neox = config.architecture != "llama";
  config.qk_norm = config.architecture == "qwen3";
  // qwen2 always has them; a llama file may (some derived models do).
  config.qkv_bias = config.architecture == "qwen2" || file.FindTensor("blk.0.attn_q.bias") != nullptr;
  TP_RETURN_IF_ERROR(ReadRope(file, &config));
  return config;
}

}  // namespace tidepool
