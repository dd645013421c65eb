#include "client/http/vocabulary.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace tidepool::http {
namespace {

constexpr int kTokensAtOnce = 32'768;  // of one call: some 400 KB

}  // namespace

absl::StatusOr<std::shared_ptr<const Vocabulary>> Vocabulary::Load(GenerationClient& client, int tokens) {
  std::string text;
  std::vector<int32_t> lengths;
  for (int first = 0; first < tokens; first += kTokensAtOnce) {
    v1::DetokenizeRequest request;
    request.set_render_special(true);
    for (int id = first; id < std::min(tokens, first + kTokensAtOnce); ++id) request.add_ids(id);
    TP_ASSIGN_OR_RETURN(const v1::DetokenizeResponse response, client.Detokenize(request));
    text += response.text();
    lengths.insert(lengths.end(), response.lengths().begin(), response.lengths().end());
  }
  return Make(std::move(text), lengths);
}

absl::StatusOr<std::shared_ptr<const Vocabulary>> Vocabulary::Make(std::string text,
                                                                   const std::vector<int32_t>& lengths) {
  auto vocabulary = std::make_shared<Vocabulary>();
  size_t end = 0;
  for (const int32_t length : lengths) {
    if (length < 0 || static_cast<size_t>(length) > text.size() - end) {
      return absl::InvalidArgumentError(absl::StrCat("lengths: ", length, " bytes, ", text.size() - end, " are left"));
    }
    vocabulary->ends_.push_back(end += static_cast<size_t>(length));
  }
  if (end != text.size()) {
    return absl::InvalidArgumentError(absl::StrCat("lengths: are ", end, " bytes of ", text.size()));
  }
  vocabulary->text_ = std::move(text);
  return vocabulary;
}

std::string_view Vocabulary::Piece(int32_t token) const {
  if (token < 0 || static_cast<size_t>(token) >= ends_.size()) return {};
  const size_t begin = token == 0 ? 0 : ends_[static_cast<size_t>(token) - 1];
  return std::string_view(text_).substr(begin, ends_[static_cast<size_t>(token)] - begin);
}

}  // namespace tidepool::http
