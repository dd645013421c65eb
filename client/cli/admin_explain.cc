// tidepool admin explain: block by block, what a prompt would find in the cache, and why.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/declare.h"
#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/cli/admin_commands.h"
#include "client/cli/compression_flags.h"
#include "client/cli/explain_view.h"
#include "client/cli/inspect_data.h"
#include "client/generation_client.h"
#include "policies/kv/block_key.h"
#include "worker/backend/backend.h"
#include "worker/kv/compressor.h"
#include "worker/model/model.h"
#include "worker/rpc/convert.h"
#include "worker/rpc/worker_flags.h"

namespace tidepool::cli {
namespace {

// As the worker computes it, by the same functions, of --model and --tenant-salt-file.
absl::StatusOr<v1::ListBlockKeysResponse> KeysOfModel(const v1::ListBlockKeysRequest& request,
                                                      const std::string& tenant) {
  TP_ASSIGN_OR_RETURN(const EngineOptions options, EngineOptionsFromFlags());
  TP_ASSIGN_OR_RETURN(const std::shared_ptr<const Model> model, Model::Load(ModelFlag()));
  v1::GenerateRequest meant;
  meant.set_text(request.text());
  *meant.mutable_compression() = request.compression();
  TP_ASSIGN_OR_RETURN(const GenerationRequest converted, RequestFrom(meant, model->tokenizer()));
  const std::vector<int32_t>& prompt = converted.prompt;
  const bool own = tenant.empty() || tenant == EngineOptions().tenant;
  const std::string salt = own ? options.tenant_salt : SaltOfTenant(options.tenant_salt, tenant);
  v1::ListBlockKeysResponse response;
  response.mutable_token_ids()->Assign(prompt.begin(), prompt.end());
  for (const BlockKey& key : ExactChain(salt, LayoutOf(*model, options.kv_type), prompt, prompt.size())) {
    response.add_keys(std::string(key.AsString()));
  }
  response.set_block_tokens(kBlockTokens);
  response.set_layers(model->config().layers);
  response.set_model_fingerprint(model->fingerprint());
  response.set_tenant(own ? EngineOptions().tenant : tenant);
  response.set_usable_blocks(Compressor::ReusablePrefix(converted.compression, static_cast<int32_t>(prompt.size())) /
                             kBlockTokens);
  return response;
}

void PrintText(const v1::ListBlockKeysResponse& keys, const Explanation& explanation) {
  std::printf("prompt        %lld tokens, %d full blocks of %d; the request may build on %d of them\n",
              static_cast<long long>(explanation.prompt_tokens), keys.keys_size(), keys.block_tokens(),
              keys.usable_blocks());
  std::printf("model         %s\ntenant        %s\n", keys.model_fingerprint().substr(0, 16).c_str(),
              keys.tenant().c_str());
  std::printf("result        %lld tokens come from the cache, %lld are computed\n",
              static_cast<long long>(explanation.hit_tokens),
              static_cast<long long>(explanation.prompt_tokens - explanation.hit_tokens));
  if (!explanation.loading.empty()) std::printf("loading       %s\n", explanation.loading.c_str());
  if (!explanation.closest.empty()) std::printf("closest       %s\n", explanation.closest.c_str());
  if (explanation.blocks.empty()) return;
  std::printf("\n%5s %-13s %-9s %-16s %s\n", "block", "tokens", "result", "where", "why");
  for (size_t i = 0; i < explanation.blocks.size(); ++i) {
    const Explanation::Block& block = explanation.blocks[i];
    std::printf("%5zu %-13s %-9s %-16s %s\n", i, absl::StrCat(block.first_token, "-", block.last_token).c_str(),
                NameOf(block.result), block.where.empty() ? "-" : block.where.c_str(), block.why.c_str());
  }
}

void PrintAsJson(const v1::ListBlockKeysResponse& keys, const Explanation& explanation) {
  nlohmann::ordered_json out = {{"prompt_tokens", explanation.prompt_tokens},
                                {"hit_tokens", explanation.hit_tokens},
                                {"block_tokens", keys.block_tokens()},
                                {"usable_blocks", keys.usable_blocks()},
                                {"model_fingerprint", keys.model_fingerprint()},
                                {"tenant", keys.tenant()},
                                {"closest", explanation.closest},
                                {"loading", explanation.loading}};
  out["blocks"] = nlohmann::ordered_json::array();
  for (size_t i = 0; i < explanation.blocks.size(); ++i) {
    const Explanation::Block& block = explanation.blocks[i];
    BlockKey key;
    std::copy(keys.keys(static_cast<int>(i)).begin(), keys.keys(static_cast<int>(i)).end(), key.bytes.begin());
    out["blocks"].push_back({{"key", key.ToHex()},
                             {"first_token", block.first_token},
                             {"last_token", block.last_token},
                             {"result", NameOf(block.result)},
                             {"where", block.where},
                             {"why", block.why}});
  }
  std::printf("%s\n", out.dump(-1, ' ', true, nlohmann::ordered_json::error_handler_t::replace).c_str());
}

}  // namespace

absl::StatusOr<v1::ListBlockKeysResponse> PromptKeys(const AdminTarget& target) {
  v1::ListBlockKeysRequest request;
  TP_ASSIGN_OR_RETURN(*request.mutable_text(), ReadPrompt());
  TP_RETURN_IF_ERROR(ReadCompressionFlags(*request.mutable_compression()));
  if (!ModelFlag().empty()) return KeysOfModel(request, target.tenant);
  return GenerationClient(WorkerAddress(), target.security).ListBlockKeys(request);
}

int AdminExplain(const AdminTarget& target) {
  const absl::StatusOr<v1::ListBlockKeysResponse> keys = PromptKeys(target);
  if (!keys.ok()) return Fail(keys.status());
  v1::ExplainRequest request;
  request.set_tenant(keys->tenant());
  *request.mutable_keys() = keys->keys();
  request.set_layers(keys->layers());
  *request.mutable_token_ids() = keys->token_ids();
  request.set_model_fingerprint(keys->model_fingerprint());
  request.set_compute_bytes_per_second(keys->compute_bytes_per_second());
  std::vector<std::pair<std::string, v1::ExplainResponse>> answers;
  for (const std::string& pod : target.pods) {
    absl::StatusOr<v1::ExplainResponse> answer = target.Client(pod).Explain(request);
    if (!answer.ok()) return FailCache(answer.status());
    answers.emplace_back(pod, *std::move(answer));
  }
  const auto piece = [&target](int32_t token) {
    if (!ModelFlag().empty()) return absl::StrCat("token ", token);
    v1::DetokenizeRequest one;
    one.add_ids(token);
    one.set_render_special(true);
    const auto text = GenerationClient(WorkerAddress(), target.security).Detokenize(one);
    return text.ok() ? ReadablePiece(text->text()) : absl::StrCat("token ", token);
  };
  const Explanation explanation = Explain(*keys, answers, piece);
  if (Json()) {
    PrintAsJson(*keys, explanation);
  } else {
    PrintText(*keys, explanation);
  }
  return kOk;
}

}  // namespace tidepool::cli
