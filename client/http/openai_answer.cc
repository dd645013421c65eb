#include "client/http/openai_answer.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/proto_json.h"
#include "client/utf8.h"

namespace tidepool::http {
namespace {

using Json = nlohmann::ordered_json;

constexpr float kLeastLogprob = -9999;  // JSON has no infinity

std::string Dump(const Json& json) {
  return json.dump(/*indent=*/-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
}

double Shown(float logprob) { return std::max(logprob, kLeastLogprob); }

bool IsUtf8(std::string_view bytes) { return client::ValidUtf8Prefix(bytes) == bytes.size(); }

// A token's name in /v1/completions, where it is a key: what is no text is spelled out, so that names differ.
std::string NameOf(std::string_view piece) {
  if (IsUtf8(piece)) return std::string(piece);
  std::string name = "bytes:";
  for (const unsigned char byte : piece) absl::StrAppend(&name, "\\x", absl::Hex(byte, absl::kZeroPad2));
  return name;
}

int64_t CharactersIn(std::string_view bytes) {
  return std::count_if(bytes.begin(), bytes.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

Json ChatLogprob(std::string_view piece, float logprob) {
  Json bytes = Json::array();
  for (const unsigned char byte : piece) bytes.push_back(byte);
  return {{"token", std::string(piece)}, {"logprob", Shown(logprob)}, {"bytes", std::move(bytes)}};
}

// Lists of one logprobs object after those of another.
void Join(Json more, Json& all) {
  if (all.is_null()) {
    all = std::move(more);
    return;
  }
  for (auto& [name, list] : more.items()) {
    if (list.is_array()) all[name].insert(all[name].end(), list.begin(), list.end());
  }
}

const char* ReasonOf(const v1::Finished& finished) {
  return finished.reason() == v1::FINISH_REASON_STOP ? "stop" : "length";
}

}  // namespace

struct OpenAiAnswer::Choice {
  std::string text;
  Json logprobs;           // of a whole answer
  int64_t characters = 0;  // of the tokens so far
  v1::Finished finished;
};

OpenAiAnswer::OpenAiAnswer(const OpenAiRequest& request, AnswerHeading heading,
                           std::shared_ptr<const Vocabulary> vocabulary)
    : chat_(request.chat),
      stream_(request.stream),
      include_usage_(request.include_usage),
      logprobs_(request.logprobs),
      extended_(request.extended),
      n_(request.n),
      heading_(std::move(heading)),
      vocabulary_(std::move(vocabulary)),
      choices_(static_cast<size_t>(request.choices())) {}

OpenAiAnswer::~OpenAiAnswer() = default;

Json OpenAiAnswer::Object(const char* kind) const {
  return {{"id", heading_.id},
          {"object", kind},
          {"created", heading_.created_unix_seconds},
          {"model", heading_.model},
          {"choices", Json::array()}};
}

Json OpenAiAnswer::Usage() const {
  int64_t prompt = 0, cached = 0, generated = 0;
  for (size_t i = 0; i < choices_.size(); ++i) {
    const v1::Usage& usage = choices_[i].finished.usage();
    generated += usage.generated_tokens();
    if (i % static_cast<size_t>(n_) != 0) continue;  // a prompt counts once, whatever number of answers it gets
    prompt += usage.prompt_tokens();
    cached += usage.cached_prompt_tokens();
  }
  return {{"prompt_tokens", prompt},
          {"completion_tokens", generated},
          {"total_tokens", prompt + generated},
          {"prompt_tokens_details", {{"cached_tokens", cached}}}};
}

std::string OpenAiAnswer::Event(Json choice) const {
  Json object = Object(chat_ ? "chat.completion.chunk" : "text_completion");
  object["choices"].push_back(std::move(choice));
  if (include_usage_) object["usage"] = nullptr;
  return absl::StrCat("data: ", Dump(object), "\n\n");
}

Json OpenAiAnswer::Logprobs(Choice& choice, const v1::Tokens& tokens) const {
  if (!logprobs_) return nullptr;
  if (chat_) {
    Json content = Json::array();
    for (const v1::TokenLogprob& token : tokens.logprobs()) {
      Json entry = ChatLogprob(vocabulary_->Piece(token.token()), token.logprob());
      entry["top_logprobs"] = Json::array();
      for (const auto& other : token.top()) {
        entry["top_logprobs"].push_back(ChatLogprob(vocabulary_->Piece(other.token()), other.logprob()));
      }
      content.push_back(std::move(entry));
    }
    return {{"content", std::move(content)}, {"refusal", nullptr}};
  }
  Json names = Json::array(), values = Json::array(), tops = Json::array(), offsets = Json::array();
  for (const v1::TokenLogprob& token : tokens.logprobs()) {
    const std::string_view piece = vocabulary_->Piece(token.token());
    names.push_back(NameOf(piece));
    values.push_back(Shown(token.logprob()));
    Json top = Json::object();
    for (const auto& other : token.top()) top[NameOf(vocabulary_->Piece(other.token()))] = Shown(other.logprob());
    top[NameOf(piece)] = Shown(token.logprob());
    tops.push_back(std::move(top));
    offsets.push_back(choice.characters);
    choice.characters += CharactersIn(piece);
  }
  return {{"text_offset", std::move(offsets)},
          {"token_logprobs", std::move(values)},
          {"tokens", std::move(names)},
          {"top_logprobs", std::move(tops)}};
}

std::string OpenAiAnswer::Add(int index, const v1::Tokens& tokens) {
  Choice& choice = choices_[static_cast<size_t>(index)];
  Json logprobs = Logprobs(choice, tokens);
  if (!stream_) {
    choice.text += tokens.text();
    Join(std::move(logprobs), choice.logprobs);
    return "";
  }
  // Text that may be the beginning of a stop string comes later.
  if (tokens.text().empty() && (!logprobs_ || tokens.logprobs().empty())) return "";
  if (chat_) {
    return Event({{"index", index},
                  {"delta", {{"content", tokens.text()}}},
                  {"logprobs", std::move(logprobs)},
                  {"finish_reason", nullptr}});
  }
  return Event(
      {{"index", index}, {"text", tokens.text()}, {"logprobs", std::move(logprobs)}, {"finish_reason", nullptr}});
}

std::string OpenAiAnswer::End(int index, const v1::Finished& finished) {
  choices_[static_cast<size_t>(index)].finished = finished;
  if (!stream_) return "";
  Json choice = {{"index", index}};
  if (chat_) {
    choice["delta"] = Json::object();
  } else {
    choice["text"] = "";
  }
  choice["logprobs"] = nullptr;
  choice["finish_reason"] = ReasonOf(finished);
  if (extended_) choice["tidepool"] = Json::parse(client::ToJson(finished));
  return Event(std::move(choice));
}

std::string OpenAiAnswer::Opening() const {
  if (!chat_) return "";
  std::string events;
  for (size_t i = 0; i < choices_.size(); ++i) {
    events += Event({{"index", i},
                     {"delta", {{"role", "assistant"}, {"content", ""}}},
                     {"logprobs", nullptr},
                     {"finish_reason", nullptr}});
  }
  return events;
}

std::string OpenAiAnswer::Closing() const {
  std::string events;
  if (include_usage_) {
    Json object = Object(chat_ ? "chat.completion.chunk" : "text_completion");
    object["usage"] = Usage();
    events = absl::StrCat("data: ", Dump(object), "\n\n");
  }
  return events + "data: [DONE]\n\n";
}

std::string OpenAiAnswer::Broken(const ApiError& error) { return absl::StrCat("data: ", error.Json(), "\n\n"); }

std::string OpenAiAnswer::Whole() const {
  Json object = Object(chat_ ? "chat.completion" : "text_completion");
  for (size_t i = 0; i < choices_.size(); ++i) {
    const Choice& choice = choices_[i];
    Json shown = {{"index", i}};
    if (chat_) {
      shown["message"] = {{"role", "assistant"}, {"content", choice.text}};
    } else {
      shown["text"] = choice.text;
    }
    shown["logprobs"] = choice.logprobs;
    shown["finish_reason"] = ReasonOf(choice.finished);
    if (extended_) shown["tidepool"] = Json::parse(client::ToJson(choice.finished));
    object["choices"].push_back(std::move(shown));
  }
  object["usage"] = Usage();
  return Dump(object) + "\n";
}

}  // namespace tidepool::http
