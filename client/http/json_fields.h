// Reading JSON objects that clients send: parsing with a limit on depth, typed fields with ranges, and an error for
// every field that nobody asked for. Messages begin with the field's path: "messages[0].role: ...".
#ifndef TIDEPOOL_CLIENT_HTTP_JSON_FIELDS_H_
#define TIDEPOOL_CLIENT_HTTP_JSON_FIELDS_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tidepool::http {

inline constexpr int kMaxJsonDepth = 32;

// A JSON object in UTF-8.
absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view text);

// The fields of one object, which outlives it. null is as good as absent.
class JsonFields {
 public:
  // prefix: goes before names in messages, "messages[0]." for example.
  JsonFields(const nlohmann::json& object, std::string prefix);

  // The value, or null when it is absent.
  const nlohmann::json* Take(const std::string& name);
  absl::StatusOr<std::optional<bool>> Bool(const std::string& name);
  absl::StatusOr<std::optional<int64_t>> Integer(const std::string& name, int64_t low, int64_t high);
  absl::StatusOr<std::optional<double>> Number(const std::string& name);
  absl::StatusOr<std::optional<std::string>> String(const std::string& name);
  // InvalidArgument naming a field that was not taken and is not null.
  absl::Status CheckAllTaken() const;

  std::string Path(const std::string& name) const { return prefix_ + name; }
  // InvalidArgument: "PATH: SHOWN-VALUE is not WANTED".
  absl::Status Wrong(const std::string& name, std::string_view wanted) const;

 private:
  const nlohmann::json& object_;
  const std::string prefix_;
  std::set<std::string> taken_;
};

// A value in a message: as JSON, cut short.
std::string ShownJson(const nlohmann::json& value);

}  // namespace tidepool::http

#endif  // TIDEPOOL_CLIENT_HTTP_JSON_FIELDS_H_
