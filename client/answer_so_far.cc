#include "client/answer_so_far.h"

#include <algorithm>
#include <string_view>
#include <utility>

namespace tidepool::client {

absl::StatusOr<v1::Tokens> AnswerSoFar::New(v1::Tokens tokens) {
  const auto ids = static_cast<size_t>(tokens.ids_size());
  const std::string_view text = tokens.text();
  const size_t old_ids = std::min(ids_.size() - ids_at_, ids),
               old_text = std::min(text_.size() - text_at_, text.size());
  if (!std::equal(ids_.begin() + static_cast<std::ptrdiff_t>(ids_at_),
                  ids_.begin() + static_cast<std::ptrdiff_t>(ids_at_ + old_ids), tokens.ids().begin()) ||
      std::string_view(text_).substr(text_at_, old_text) != text.substr(0, old_text)) {
    return absl::AbortedError(
        "the worker went, and another one answers otherwise from the beginning (asynchronous recall, or another "
        "device): ask the turn again");
  }
  ids_at_ += ids;
  text_at_ += text.size();
  ids_.insert(ids_.end(), tokens.ids().begin() + static_cast<int>(old_ids), tokens.ids().end());
  text_.append(text.substr(old_text));
  if (old_ids == 0 && old_text == 0) return tokens;
  v1::Tokens rest;
  rest.mutable_ids()->Add(tokens.ids().begin() + static_cast<int>(old_ids), tokens.ids().end());
  rest.set_text(std::string(text.substr(old_text)));
  for (int i = static_cast<int>(old_ids); i < tokens.logprobs_size(); ++i) {
    *rest.add_logprobs() = std::move(*tokens.mutable_logprobs(i));
  }
  return rest;
}

bool WorkerHasGone(const absl::Status& status, bool cancelled) {
  // A worker that ends cancels what is left after its drain time.
  return absl::IsUnavailable(status) || (absl::IsCancelled(status) && !cancelled);
}

}  // namespace tidepool::client
