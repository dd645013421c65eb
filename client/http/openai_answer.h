// A worker's responses as the JSON of /v1/completions and /v1/chat/completions, whole or as the events of a stream. No
// threads, no clock. What a stream's events say, joined, is what the whole answer says.
#ifndef TIDEPOOL_CLIENT_HTTP_OPENAI_ANSWER_H_
#define TIDEPOOL_CLIENT_HTTP_OPENAI_ANSWER_H_

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "client/http/api_error.h"
#include "client/http/openai_request.h"
#include "client/http/vocabulary.h"
#include "tidepool/v1/generation.pb.h"

namespace tidepool::http {

// What every object of an answer says.
struct AnswerHeading {
  std::string id;
  std::string model;
  int64_t created_unix_seconds = 0;
};

class OpenAiAnswer {
 public:
  OpenAiAnswer(const OpenAiRequest& request, AnswerHeading heading, std::shared_ptr<const Vocabulary> vocabulary);
  ~OpenAiAnswer();

  // Every choice gets Add... and one End. For streams they return the events to send, which may be none.
  std::string Add(int choice, const v1::Tokens& tokens);
  std::string End(int choice, const v1::Finished& finished);

  // For streams: the first event of every choice, and what comes when all have ended.
  std::string Opening() const;
  std::string Closing() const;
  // In the place of the rest of a stream.
  static std::string Broken(const ApiError& error);

  // For the others: when all choices have ended.
  std::string Whole() const;

 private:
  struct Choice;

  nlohmann::ordered_json Object(const char* kind) const;
  nlohmann::ordered_json Usage() const;
  std::string Event(nlohmann::ordered_json choice) const;
  nlohmann::ordered_json Logprobs(Choice& choice, const v1::Tokens& tokens) const;

  const bool chat_, stream_, include_usage_, logprobs_, extended_;
  const int n_;
  const AnswerHeading heading_;
  const std::shared_ptr<const Vocabulary> vocabulary_;
  std::vector<Choice> choices_;
};

}  // namespace tidepool::http

#endif  // TIDEPOOL_CLIENT_HTTP_OPENAI_ANSWER_H_
