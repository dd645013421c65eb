// tidepool model info FILE: what a GGUF file holds, without a server.
#include "worker/model/model.h"

#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/byte_size.h"
#include "client/cli/cli.h"

namespace tidepool::cli {
namespace {

int ModelInfo(const Arguments& arguments) {
  if (arguments.size() != 2 || arguments[0] != "info")
    return UsageError("model: usage is tidepool model info FILE.gguf");
  const absl::StatusOr<std::shared_ptr<const Model>> loaded = Model::Load(arguments[1]);
  if (!loaded.ok()) {
    Fail(loaded.status());
    return kFailed;
  }
  const Model& model = **loaded;
  const ModelConfig& config = model.config();
  std::map<std::string, int> types;
  auto count = [&](const TensorView& tensor) {
    if (!tensor.empty()) ++types[TensorTypeName(tensor.type)];
  };
  count(model.token_embedding());
  for (int i = 0; i < config.layers; ++i) {
    const LayerTensors& layer = model.layer(i);
    for (const TensorView* tensor :
         {&layer.attention_norm, &layer.q, &layer.k, &layer.v, &layer.q_bias, &layer.k_bias, &layer.v_bias,
          &layer.q_norm, &layer.k_norm, &layer.output, &layer.ffn_norm, &layer.gate, &layer.up, &layer.down}) {
      count(*tensor);
    }
  }
  const absl::StatusOr<const ChatTemplate*> chat = model.chat_template();
  const std::string chat_name = chat.ok() ? std::string((*chat)->name()) : std::string(chat.status().message());
  const uint64_t kv_bytes = uint64_t{2} * config.layers * config.kv_heads * config.head_dim * 2;
  if (Json()) {
    const nlohmann::json json = {{"name", config.name},
                                 {"architecture", config.architecture},
                                 {"layers", config.layers},
                                 {"width", config.width},
                                 {"heads", config.heads},
                                 {"kv_heads", config.kv_heads},
                                 {"head_dim", config.head_dim},
                                 {"ffn_width", config.ffn_width},
                                 {"vocabulary", config.vocabulary},
                                 {"context_tokens", config.context_tokens},
                                 {"tensor_bytes", model.tensor_bytes()},
                                 {"tensor_types", types},
                                 {"kv_bytes_per_token", kv_bytes},
                                 {"chat_template", chat.ok() ? chat_name : ""},
                                 {"fingerprint", model.fingerprint()}};
    std::printf("%s\n", json.dump().c_str());
    return kOk;
  }
  std::string type_list;
  for (const auto& [type, number] : types)
    absl::StrAppend(&type_list, type_list.empty() ? "" : ", ", number, " ", type);
  std::printf(
      "name          %s\narchitecture  %s\nlayers        %d, width %d, feed-forward %d\nheads         %d query, %d kv, "
      "size %d\n",
      config.name.c_str(), config.architecture.c_str(), config.layers, config.width, config.ffn_width, config.heads,
      config.kv_heads, config.head_dim);
  std::printf(
      "vocabulary    %d tokens\ncontext       %d tokens\ntensors       %s (%s)\nkv cache      %s per token in 16 "
      "bits\n",
      config.vocabulary, config.context_tokens, FormatByteSize(model.tensor_bytes()).c_str(), type_list.c_str(),
      FormatByteSize(kv_bytes).c_str());
  std::printf("chat          %s\nfingerprint   %s\n", chat_name.c_str(), model.fingerprint().c_str());
  return kOk;
}

}  // namespace

Command ModelCommand() {
  return {.name = "model",
          .arguments = "info FILE.gguf",
          .summary = "what a model file holds, without a server",
          .details = "",
          .flags = {"--json"},
          .run = ModelInfo};
}

}  // namespace tidepool::cli
