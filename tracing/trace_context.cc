#include "tracing/trace_context.h"

#include <openssl/rand.h>

#include <algorithm>

#include "absl/strings/escaping.h"
#include "base/check.h"

namespace tidepool {
namespace {

constexpr size_t kVersionDigits = 2, kTraceDigits = 32, kSpanDigits = 16, kFlagDigits = 2;
constexpr size_t kLength = kVersionDigits + 1 + kTraceDigits + 1 + kSpanDigits + 1 + kFlagDigits;

bool IsHex(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}
bool IsZero(std::string_view text) { return text.find_first_not_of('0') == std::string_view::npos; }

std::string RandomHex(size_t digits) {
  std::string bytes(digits / 2, '\0');
  do {
    TIDEPOOL_CHECK(RAND_bytes(reinterpret_cast<unsigned char*>(bytes.data()), static_cast<int>(bytes.size())) == 1);
  } while (IsZero(absl::BytesToHexString(bytes)));
  return absl::BytesToHexString(bytes);
}

}  // namespace

// version "-" trace id "-" parent id "-" flags. Later versions than 00 may have more behind another "-".
std::optional<TraceContext> ParseTraceParent(std::string_view header) {
  if (header.size() < kLength) return std::nullopt;
  const std::string_view version = header.substr(0, kVersionDigits);
  const std::string_view trace = header.substr(kVersionDigits + 1, kTraceDigits);
  const std::string_view span = header.substr(kVersionDigits + 1 + kTraceDigits + 1, kSpanDigits);
  const std::string_view flags = header.substr(kLength - kFlagDigits, kFlagDigits);
  if (!IsHex(version) || version == "ff" || !IsHex(trace) || IsZero(trace) || !IsHex(span) || IsZero(span) ||
      !IsHex(flags)) {
    return std::nullopt;
  }
  if (header[2] != '-' || header[35] != '-' || header[52] != '-') return std::nullopt;
  if (header.size() > kLength && (version == "00" || header[kLength] != '-')) return std::nullopt;
  const char last = flags[1];
  const int low = last <= '9' ? last - '0' : last - 'a' + 10;
  return TraceContext{std::string(trace), std::string(span), (low & 1) != 0};
}

std::string NewTraceId() { return RandomHex(kTraceDigits); }
std::string NewSpanId() { return RandomHex(kSpanDigits); }

}  // namespace tidepool
