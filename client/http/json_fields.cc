#include "client/http/json_fields.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/utf8.h"

namespace tidepool::http {
namespace {

using Json = nlohmann::json;

constexpr size_t kShownBytes = 80;

// Of brackets outside strings; for any text, JSON or not.
int DepthOf(std::string_view text) {
  int depth = 0, deepest = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      deepest = std::max(deepest, ++depth);
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return deepest;
}

}  // namespace

absl::StatusOr<Json> ParseJsonObject(std::string_view text) {
  if (const size_t valid = client::ValidUtf8Prefix(text); valid != text.size()) {
    return absl::InvalidArgumentError(absl::StrCat("the body is not UTF-8 at byte ", valid, " of ", text.size()));
  }
  if (const int depth = DepthOf(text); depth > kMaxJsonDepth) {
    return absl::InvalidArgumentError(
        absl::StrCat("the body nests ", depth, " levels of JSON, at most ", kMaxJsonDepth));
  }
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return absl::InvalidArgumentError("the body is not a JSON object");
  return json;
}

std::string ShownJson(const Json& value) {
  std::string text = value.dump(/*indent=*/-1, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace);
  if (text.size() > kShownBytes) text = text.substr(0, kShownBytes) + "...";
  return text;
}

JsonFields::JsonFields(const Json& object, std::string prefix) : object_(object), prefix_(std::move(prefix)) {}

const Json* JsonFields::Take(const std::string& name) {
  taken_.insert(name);
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

absl::Status JsonFields::Wrong(const std::string& name, std::string_view wanted) const {
  const auto found = object_.find(name);
  return absl::InvalidArgumentError(absl::StrCat(Path(name), ": ", found == object_.end() ? "null" : ShownJson(*found),
                                                 " is not ", absl::string_view(wanted.data(), wanted.size())));
}

absl::StatusOr<std::optional<bool>> JsonFields::Bool(const std::string& name) {
  const Json* value = Take(name);
  if (value == nullptr) return std::optional<bool>();
  if (!value->is_boolean()) return Wrong(name, "true or false");
  return std::optional<bool>(value->get<bool>());
}

absl::StatusOr<std::optional<int64_t>> JsonFields::Integer(const std::string& name, int64_t low, int64_t high) {
  const Json* value = Take(name);
  if (value == nullptr) return std::optional<int64_t>();
  const std::string wanted = absl::StrCat("an integer of ", low, " to ", high);
  // Integers above the signed range are unsigned ones here.
  if (!value->is_number_integer() || (value->is_number_unsigned() && value->get<uint64_t>() > INT64_MAX)) {
    return Wrong(name, wanted);
  }
  const int64_t number = value->get<int64_t>();
  if (number < low || number > high) return Wrong(name, wanted);
  return std::optional<int64_t>(number);
}

absl::StatusOr<std::optional<double>> JsonFields::Number(const std::string& name) {
  const Json* value = Take(name);
  if (value == nullptr) return std::optional<double>();
  if (!value->is_number() || !std::isfinite(value->get<double>())) return Wrong(name, "a number");
  return std::optional<double>(value->get<double>());
}

absl::StatusOr<std::optional<std::string>> JsonFields::String(const std::string& name) {
  const Json* value = Take(name);
  if (value == nullptr) return std::optional<std::string>();
  if (!value->is_string()) return Wrong(name, "a string");
  return std::optional<std::string>(value->get<std::string>());
}

absl::Status JsonFields::CheckAllTaken() const {
  for (const auto& [name, value] : object_.items()) {
    if (!value.is_null() && !taken_.contains(name)) {
      return absl::InvalidArgumentError(absl::StrCat(prefix_, name.substr(0, kShownBytes), ": is not supported"));
    }
  }
  return absl::OkStatus();
}

}  // namespace tidepool::http
