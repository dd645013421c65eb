#include "client/http/openai_request.h"

#include <google/protobuf/util/json_util.h>

#include <climits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/limits.h"
#include "base/status_macros.h"
#include "client/http/json_fields.h"

namespace tidepool::http {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxUserBytes = 256;

// Fields that say what is the case anyway, when they have one of these values.
struct NeutralField {
  const char* name;
  std::vector<Json> values;
};

const std::vector<NeutralField>& NeutralFields(bool chat) {
  static const std::vector<NeutralField> completion = {{"best_of", {1}}, {"echo", {false}}, {"suffix", {""}}};
  static const std::vector<NeutralField> chats = {
      {"store", {false}},
      {"tools", {Json::array()}},
      {"tool_choice", {"none", "auto"}},
      {"parallel_tool_calls", {false, true}},
      {"modalities", {Json::array({"text"})}},
      {"response_format", {Json({{"type", "text"}})}},
      {"service_tier", {"auto", "default"}},
  };
  return chat ? chats : completion;
}

absl::Status ReadNeutralFields(bool chat, JsonFields& fields) {
  for (const NeutralField& field : NeutralFields(chat)) {
    const Json* value = fields.Take(field.name);
    if (value == nullptr) continue;
    std::string allowed;
    bool neutral = false;
    for (const Json& one : field.values) {
      neutral = neutral || *value == one;
      absl::StrAppend(&allowed, allowed.empty() ? "" : " or ", one.dump());
    }
    if (!neutral) return fields.Wrong(field.name, absl::StrCat(allowed, ", all that is supported"));
  }
  return absl::OkStatus();
}

// Both requests have the same fields but for the prompt.
struct Common {
  v1::SamplingParams sampling;
  v1::StopParams stop;
  std::optional<int> logprobs;
  v1::OpenAiExtension extension;
};

template <typename Request>
void Apply(const Common& common, Request& request) {
  *request.mutable_sampling() = common.sampling;
  *request.mutable_stop() = common.stop;
  if (common.logprobs.has_value()) request.set_logprobs(*common.logprobs);
  request.set_session_id(common.extension.session_id());
  if (common.extension.has_compression()) *request.mutable_compression() = common.extension.compression();
  if (common.extension.has_reuse_prefix()) request.set_reuse_prefix(common.extension.reuse_prefix());
}

absl::Status ReadSampling(JsonFields& fields, uint64_t default_seed, v1::SamplingParams& sampling) {
  TP_ASSIGN_OR_RETURN(const std::optional<double> temperature, fields.Number("temperature"));
  TP_ASSIGN_OR_RETURN(const std::optional<double> top_p, fields.Number("top_p"));
  TP_ASSIGN_OR_RETURN(const std::optional<double> presence, fields.Number("presence_penalty"));
  TP_ASSIGN_OR_RETURN(const std::optional<double> frequency, fields.Number("frequency_penalty"));
  TP_ASSIGN_OR_RETURN(const std::optional<int64_t> seed, fields.Integer("seed", INT64_MIN, INT64_MAX));
  sampling.set_temperature(static_cast<float>(temperature.value_or(1)));  // OpenAI's default, not the worker's
  if (top_p.has_value()) sampling.set_top_p(static_cast<float>(*top_p));
  if (presence.has_value()) sampling.set_presence_penalty(static_cast<float>(*presence));
  if (frequency.has_value()) sampling.set_frequency_penalty(static_cast<float>(*frequency));
  sampling.set_seed(seed.has_value() ? static_cast<uint64_t>(*seed) : default_seed);

  const Json* bias = fields.Take("logit_bias");
  if (bias == nullptr) return absl::OkStatus();
  if (!bias->is_object()) return fields.Wrong("logit_bias", "an object of token ids and numbers");
  if (bias->size() > kMaxLogitBias) {
    return absl::InvalidArgumentError(absl::StrCat("logit_bias: ", bias->size(), " entries, at most ", kMaxLogitBias));
  }
  for (const auto& [token, value] : bias->items()) {
    int32_t id = 0;
    if (!absl::SimpleAtoi(token, &id) || !value.is_number()) {
      return absl::InvalidArgumentError(
          absl::StrCat("logit_bias: ", ShownJson(token), ": ", ShownJson(value), " is not a token id and a number"));
    }
    (*sampling.mutable_logit_bias())[id] = value.get<float>();
  }
  return absl::OkStatus();
}

absl::Status ReadStopStrings(JsonFields& fields, v1::StopParams& stop) {
  const Json* value = fields.Take("stop");
  if (value == nullptr) return absl::OkStatus();
  if (value->is_string()) {
    stop.add_strings(value->get<std::string>());
    return absl::OkStatus();
  }
  if (!value->is_array()) return fields.Wrong("stop", "a string or a list of strings");
  if (value->size() > kMaxStopStrings) {
    return absl::InvalidArgumentError(absl::StrCat("stop: ", value->size(), " strings, at most ", kMaxStopStrings));
  }
  for (const Json& entry : *value) {
    if (!entry.is_string()) return fields.Wrong("stop", "a string or a list of strings");
    stop.add_strings(entry.get<std::string>());
  }
  return absl::OkStatus();
}

absl::Status ReadMaxTokens(bool chat, const OpenAiDefaults& defaults, JsonFields& fields, v1::StopParams& stop) {
  TP_ASSIGN_OR_RETURN(const std::optional<int64_t> max_tokens, fields.Integer("max_tokens", 0, INT32_MAX));
  std::optional<int64_t> newer;
  if (chat) {
    TP_ASSIGN_OR_RETURN(newer, fields.Integer("max_completion_tokens", 0, INT32_MAX));
  }
  if (max_tokens.has_value() && newer.has_value() && *max_tokens != *newer) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_tokens: ", *max_tokens, " is not the ", *newer, " of max_completion_tokens"));
  }
  const int by_default = chat ? defaults.chat_max_tokens : defaults.completion_max_tokens;
  stop.set_max_tokens(static_cast<int32_t>(newer.value_or(max_tokens.value_or(by_default))));
  return absl::OkStatus();
}

absl::Status ReadLogprobs(bool chat, JsonFields& fields, std::optional<int>& logprobs) {
  if (!chat) {
    TP_ASSIGN_OR_RETURN(const std::optional<int64_t> count, fields.Integer("logprobs", 0, kMaxLogprobs));
    if (count.has_value()) logprobs = static_cast<int>(*count);
    return absl::OkStatus();
  }
  TP_ASSIGN_OR_RETURN(const std::optional<bool> shown, fields.Bool("logprobs"));
  TP_ASSIGN_OR_RETURN(const std::optional<int64_t> top, fields.Integer("top_logprobs", 0, kMaxLogprobs));
  if (top.has_value() && !shown.value_or(false)) {
    return absl::InvalidArgumentError("top_logprobs: needs logprobs to be true");
  }
  if (shown.value_or(false)) logprobs = static_cast<int>(top.value_or(0));
  return absl::OkStatus();
}

absl::Status ReadStream(JsonFields& fields, OpenAiRequest& request) {
  TP_ASSIGN_OR_RETURN(const std::optional<bool> stream, fields.Bool("stream"));
  request.stream = stream.value_or(false);
  const Json* options = fields.Take("stream_options");
  if (options == nullptr) return absl::OkStatus();
  if (!request.stream) return absl::InvalidArgumentError("stream_options: needs stream to be true");
  if (!options->is_object()) return fields.Wrong("stream_options", "an object");
  JsonFields inner(*options, "stream_options.");
  TP_ASSIGN_OR_RETURN(const std::optional<bool> usage, inner.Bool("include_usage"));
  TP_RETURN_IF_ERROR(inner.CheckAllTaken());
  request.include_usage = usage.value_or(false);
  return absl::OkStatus();
}

absl::Status ReadExtension(bool chat, JsonFields& fields, Common& common) {
  const Json* value = fields.Take("tidepool");
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_object()) return fields.Wrong("tidepool", "an object");
  v1::OpenAiExtension& extension = common.extension;
  if (const auto parsed = google::protobuf::util::JsonStringToMessage(value->dump(), &extension); !parsed.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("tidepool: ", std::string(parsed.message())));
  }
  if (chat && extension.parse_special()) {
    return absl::InvalidArgumentError("tidepool.parse_special: is for /v1/completions, messages are plain text");
  }
  if (extension.has_top_k()) common.sampling.set_top_k(extension.top_k());
  if (extension.has_min_p()) common.sampling.set_min_p(extension.min_p());
  if (extension.has_repetition_penalty()) common.sampling.set_repetition_penalty(extension.repetition_penalty());
  if (extension.has_min_tokens()) common.stop.set_min_tokens(extension.min_tokens());
  if (extension.has_ignore_eos()) common.stop.set_ignore_eos(extension.ignore_eos());
  *common.stop.mutable_token_ids() = extension.stop_token_ids();
  return absl::OkStatus();
}

// --- Prompts and messages
// ---------------------------------------------------------------------------------------------

bool IsTokenList(const Json& value) {
  if (!value.is_array() || value.empty()) return false;
  for (const Json& entry : value) {
    if (!entry.is_number_integer()) return false;
  }
  return true;
}

absl::Status AddPrompt(const Json& value, const Common& common, OpenAiRequest& request) {
  v1::GenerateRequest prompt;
  if (value.is_string()) {
    prompt.set_text(value.get<std::string>());
  } else if (IsTokenList(value)) {
    for (const Json& entry : value) {
      const int64_t id = entry.is_number_unsigned() && entry.get<uint64_t>() > INT32_MAX ? -1 : entry.get<int64_t>();
      if (id < 0 || id > INT32_MAX) {
        return absl::InvalidArgumentError(absl::StrCat("prompt: ", ShownJson(entry), " is not a token id"));
      }
      prompt.mutable_token_ids()->add_ids(static_cast<int32_t>(id));
    }
  } else {
    return absl::InvalidArgumentError(
        "prompt: is not a string, a list of token ids, or a list of strings or of such lists");
  }
  prompt.set_parse_special(common.extension.parse_special());
  Apply(common, prompt);
  request.prompts.emplace_back(std::move(prompt));
  return absl::OkStatus();
}

absl::Status ReadPrompts(JsonFields& fields, const Common& common, OpenAiRequest& request) {
  const Json* value = fields.Take("prompt");
  if (value == nullptr) return absl::InvalidArgumentError("prompt: is missing");
  if (!value->is_array() || IsTokenList(*value)) return AddPrompt(*value, common, request);
  if (value->empty()) return absl::InvalidArgumentError("prompt: is an empty list");
  if (value->size() > kMaxChoices) {
    return absl::InvalidArgumentError(absl::StrCat("prompt: ", value->size(), " prompts, at most ", kMaxChoices));
  }
  for (const Json& entry : *value) TP_RETURN_IF_ERROR(AddPrompt(entry, common, request));
  return absl::OkStatus();
}

// A string, or a list of parts of which all are text.
absl::StatusOr<std::string> ReadContent(const Json* content, const std::string& path) {
  if (content == nullptr) return absl::InvalidArgumentError(absl::StrCat(path, ": is missing"));
  if (content->is_string()) return content->get<std::string>();
  if (!content->is_array()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", ShownJson(*content), " is not a string or a list of text parts"));
  }
  std::string text;
  for (size_t i = 0; i < content->size(); ++i) {
    const Json& part = (*content)[i];
    const std::string at = absl::StrCat(path, "[", i, "]");
    if (!part.is_object()) return absl::InvalidArgumentError(absl::StrCat(at, ": is not an object"));
    JsonFields fields(part, absl::StrCat(at, "."));
    TP_ASSIGN_OR_RETURN(const std::optional<std::string> type, fields.String("type"));
    if (type != "text") return fields.Wrong("type", "\"text\": a model of text gets no other parts");
    TP_ASSIGN_OR_RETURN(const std::optional<std::string> words, fields.String("text"));
    if (!words.has_value()) return absl::InvalidArgumentError(absl::StrCat(at, ".text: is missing"));
    TP_RETURN_IF_ERROR(fields.CheckAllTaken());
    text += *words;
  }
  return text;
}

absl::Status ReadMessages(JsonFields& fields, const Common& common, OpenAiRequest& request) {
  const Json* value = fields.Take("messages");
  if (value == nullptr) return absl::InvalidArgumentError("messages: is missing");
  if (!value->is_array() || value->empty()) return fields.Wrong("messages", "a list of messages");
  if (value->size() > kMaxMessages) {
    return absl::InvalidArgumentError(absl::StrCat("messages: ", value->size(), " of them, at most ", kMaxMessages));
  }
  v1::ChatRequest chat;
  for (size_t i = 0; i < value->size(); ++i) {
    const std::string at = absl::StrCat("messages[", i, "]");
    if (!(*value)[i].is_object()) return absl::InvalidArgumentError(absl::StrCat(at, ": is not an object"));
    JsonFields message((*value)[i], absl::StrCat(at, "."));
    TP_ASSIGN_OR_RETURN(const std::optional<std::string> role, message.String("role"));
    if (role != "system" && role != "developer" && role != "user" && role != "assistant") {
      return message.Wrong("role", "system, developer, user or assistant");
    }
    v1::ChatMessage& out = *chat.add_messages();
    out.set_role(role == "developer" ? "system" : *role);
    TP_ASSIGN_OR_RETURN(*out.mutable_content(), ReadContent(message.Take("content"), absl::StrCat(at, ".content")));
    TP_RETURN_IF_ERROR(message.CheckAllTaken());
  }
  Apply(common, chat);
  request.prompts.emplace_back(std::move(chat));
  return absl::OkStatus();
}

}  // namespace

const std::string& OpenAiRequest::session_id() const {
  return std::visit([](const auto& request) -> const std::string& { return request.session_id(); }, prompts.front());
}

std::variant<v1::GenerateRequest, v1::ChatRequest> OpenAiRequest::Choice(int index,
                                                                         const std::string& request_id) const {
  auto choice = prompts[static_cast<size_t>(index / n)];
  std::visit(
      [&](auto& request) {
        request.set_request_id(request_id);
        request.mutable_sampling()->set_seed(request.sampling().seed() + static_cast<uint64_t>(index % n));
      },
      choice);
  return choice;
}

absl::StatusOr<OpenAiRequest> ParseOpenAiRequest(bool chat, std::string_view body, const OpenAiDefaults& defaults) {
  TP_ASSIGN_OR_RETURN(const Json json, ParseJsonObject(body));
  JsonFields fields(json, "");
  OpenAiRequest request;
  request.chat = chat;
  Common common;
  TP_ASSIGN_OR_RETURN(const std::optional<std::string> model, fields.String("model"));
  request.model = model.value_or("");
  TP_RETURN_IF_ERROR(ReadStream(fields, request));
  TP_RETURN_IF_ERROR(ReadSampling(fields, defaults.seed, common.sampling));
  TP_RETURN_IF_ERROR(ReadMaxTokens(chat, defaults, fields, common.stop));
  TP_RETURN_IF_ERROR(ReadStopStrings(fields, common.stop));
  TP_RETURN_IF_ERROR(ReadLogprobs(chat, fields, common.logprobs));
  request.logprobs = common.logprobs.has_value();
  TP_RETURN_IF_ERROR(ReadExtension(chat, fields, common));
  request.extended = json.contains("tidepool") && !json.at("tidepool").is_null();
  TP_RETURN_IF_ERROR(ReadNeutralFields(chat, fields));
  TP_ASSIGN_OR_RETURN(const std::optional<std::string> user, fields.String("user"));
  if (user.has_value() && user->size() > kMaxUserBytes) {
    return absl::InvalidArgumentError(absl::StrCat("user: ", user->size(), " bytes, at most ", kMaxUserBytes));
  }
  TP_ASSIGN_OR_RETURN(const std::optional<int64_t> n, fields.Integer("n", 1, kMaxChoices));
  request.n = static_cast<int>(n.value_or(1));
  TP_RETURN_IF_ERROR(chat ? ReadMessages(fields, common, request) : ReadPrompts(fields, common, request));
  TP_RETURN_IF_ERROR(fields.CheckAllTaken());
  if (request.choices() > kMaxChoices) {
    return absl::InvalidArgumentError(absl::StrCat("n: ", request.n, " answers to ", request.prompts.size(),
                                                   " prompts are ", request.choices(), ", at most ", kMaxChoices));
  }
  if (request.choices() > 1 && !request.session_id().empty()) {
    return absl::InvalidArgumentError("n: a session has one answer to one prompt");
  }
  return request;
}

}  // namespace tidepool::http
