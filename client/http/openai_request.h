// Bodies of /v1/completions and /v1/chat/completions as requests to a worker. What is not supported is refused by name,
// never ignored; ranges that the worker checks are left to it. Deterministic: the seed for requests that give none
// comes in as an argument.
#ifndef TIDEPOOL_CLIENT_HTTP_OPENAI_REQUEST_H_
#define TIDEPOOL_CLIENT_HTTP_OPENAI_REQUEST_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "tidepool/v1/generation.pb.h"

namespace tidepool::http {

inline constexpr int kMaxChoices = 16;  // prompts times n of one request
inline constexpr int kMaxMessages = 4096;

struct OpenAiRequest {
  bool chat = false;
  std::string model;  // empty: not given
  bool stream = false;
  bool include_usage = false;  // of a stream: a last chunk with the usage
  bool logprobs = false;       // asked for
  bool extended = false;       // has a field `tidepool`, so the answer has one
  int n = 1;                   // choices for each prompt
  // One for each prompt; a chat has one.
  std::vector<std::variant<v1::GenerateRequest, v1::ChatRequest>> prompts;

  int choices() const { return n * static_cast<int>(prompts.size()); }
  const std::string& session_id() const;
  // What choice 0 to choices() - 1 asks for: those of one prompt differ by their seeds.
  std::variant<v1::GenerateRequest, v1::ChatRequest> Choice(int index, const std::string& request_id) const;
};

struct OpenAiDefaults {
  int completion_max_tokens = 16;  // OpenAI's
  int chat_max_tokens = 1024;
  uint64_t seed = 0;
};

// InvalidArgument whose message begins with the field's name.
absl::StatusOr<OpenAiRequest> ParseOpenAiRequest(bool chat, std::string_view body, const OpenAiDefaults& defaults);

}  // namespace tidepool::http

#endif  // TIDEPOOL_CLIENT_HTTP_OPENAI_REQUEST_H_
