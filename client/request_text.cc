#include "client/request_text.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/utf8.h"

namespace tidepool::client {
namespace {

absl::Status CheckField(const std::string& field, const std::string& text) {
  const size_t valid = ValidUtf8Prefix(text);
  if (valid == text.size()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, ": byte ", valid, " of ", text.size(), " is not UTF-8"));
}

}  // namespace

absl::Status CheckText(const v1::GenerateRequest& request) { return CheckField("text", request.text()); }

absl::Status CheckText(const v1::ListBlockKeysRequest& request) { return CheckField("text", request.text()); }

absl::Status CheckText(const v1::ChatRequest& request) {
  for (int i = 0; i < request.messages_size(); ++i) {
    TP_RETURN_IF_ERROR(CheckField(absl::StrCat("messages[", i, "].content"), request.messages(i).content()));
  }
  return absl::OkStatus();
}

}  // namespace tidepool::client
