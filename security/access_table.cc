#include "security/access_table.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"

namespace tidepool {
namespace {

constexpr size_t kMaxNameBytes = 256;
constexpr int64_t kMostPerMinute = int64_t{1'000'000'000'000};

bool IsVisible(std::string_view text) { return std::all_of(text.begin(), text.end(), absl::ascii_isgraph); }

absl::Status CheckTenant(const std::string& tenant) {
  if (!tenant.empty() && tenant.size() <= 128 && IsVisible(tenant)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("tenant '", absl::CHexEscape(tenant.substr(0, 80)),
                                                 "' is not * or 1 to 128 visible ASCII characters"));
}

absl::StatusOr<Role> ParseRole(const std::string& word) {
  for (Role role : {Role::kUser, Role::kWorker, Role::kAdmin}) {
    if (word == RoleName(role)) return role;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("role '", absl::CHexEscape(word.substr(0, 80)), "' is not user, worker or admin"));
}

absl::StatusOr<AccessTable::Entry> ParseEntry(std::string name, const std::string& tenant, const std::string& role) {
  TP_RETURN_IF_ERROR(CheckTenant(tenant));
  AccessTable::Entry entry{.name = std::move(name), .tenant = tenant, .role = Role::kUser};
  TP_ASSIGN_OR_RETURN(entry.role, ParseRole(role));
  if (entry.role == Role::kUser && tenant == kAllTenants) {
    return absl::InvalidArgumentError("tenant * is for workers and admins: a user has one tenant");
  }
  return entry;
}

absl::StatusOr<Sha256::Digest> ParseDigest(const std::string& word) {
  Sha256::Digest digest;
  if (word.size() != 2 * digest.size() || !std::all_of(word.begin(), word.end(), absl::ascii_isxdigit)) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", absl::CHexEscape(word.substr(0, 80)), "' is not a SHA-256 of 64 hexadecimal digits"));
  }
  const std::string bytes = absl::HexStringToBytes(word);
  std::memcpy(digest.data(), bytes.data(), digest.size());
  return digest;
}

absl::StatusOr<int64_t> ParseRate(const char* what, const std::string& word) {
  int64_t value = 0;
  if (word == "-") return 0;
  if (absl::SimpleAtoi(word, &value) && value >= 1 && value <= kMostPerMinute) return value;
  return absl::InvalidArgumentError(absl::StrCat(what, " '", absl::CHexEscape(word.substr(0, 80)), "' is not in 1 to ",
                                                 kMostPerMinute, ", or - for no limit"));
}

}  // namespace

std::string_view RoleName(Role role) {
  switch (role) {
    case Role::kUser: return "user";
    case Role::kWorker: return "worker";
    case Role::kAdmin: return "admin";
  }
  return "";
}

Sha256::Digest TokenDigest(std::string_view token) { return Sha256().Add(token.data(), token.size()).Finish(); }

absl::StatusOr<AccessTable> AccessTable::Parse(std::string_view text) {
  if (text.size() > kMaxAccessFileBytes) {
    return absl::InvalidArgumentError(absl::StrCat(text.size(), " bytes, at most ", kMaxAccessFileBytes));
  }
  AccessTable table;
  size_t number = 0, entries = 0;
  for (absl::string_view line : absl::StrSplit(absl::string_view(text.data(), text.size()), '\n')) {
    ++number;
    line = line.substr(0, line.find('#'));
    const std::vector<std::string> words = absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
    if (words.empty()) continue;
    absl::Status status = ++entries > kMaxAccessLines
                              ? absl::InvalidArgumentError(absl::StrCat("more than ", kMaxAccessLines, " entries"))
                              : table.ParseLine(words);
    if (!status.ok()) return absl::InvalidArgumentError(absl::StrCat("line ", number, ": ", status.message()));
  }
  return table;
}

absl::Status AccessTable::ParseLine(absl::Span<const std::string> words) {
  if (words[0] != "token" && words[0] != "cert" && words[0] != "rate") {
    return absl::InvalidArgumentError(
        absl::StrCat("'", absl::CHexEscape(words[0].substr(0, 80)), "' is not token, cert or rate"));
  }
  if (words.size() != 4) {
    const char* form = words[0] == "token"  ? "token SHA256 TENANT ROLE"
                       : words[0] == "cert" ? "cert NAME TENANT ROLE"
                                            : "rate TENANT REQUESTS TOKENS";
    return absl::InvalidArgumentError(absl::StrCat(words.size(), " words, 4 are needed: ", form));
  }
  if (words[0] == "token") {
    TP_ASSIGN_OR_RETURN(const Sha256::Digest digest, ParseDigest(words[1]));
    if (FindToken(digest) != nullptr) return absl::InvalidArgumentError("the token is there already");
    const std::string name = absl::StrCat("token ", absl::AsciiStrToLower(words[1].substr(0, 8)));
    TP_ASSIGN_OR_RETURN(Entry entry, ParseEntry(name, words[2], words[3]));
    tokens_.push_back({digest, std::move(entry)});
  } else if (words[0] == "cert") {
    if (words[1].size() > kMaxNameBytes || !IsVisible(words[1])) {
      return absl::InvalidArgumentError(absl::StrCat("name '", absl::CHexEscape(words[1].substr(0, 80)),
                                                     "' is not 1 to ", kMaxNameBytes, " visible ASCII characters"));
    }
    if (FindCertificate({&words[1], 1}) != nullptr) return absl::InvalidArgumentError("the name is there already");
    TP_ASSIGN_OR_RETURN(Entry entry, ParseEntry(absl::StrCat("certificate ", words[1]), words[2], words[3]));
    certificates_.push_back({words[1], std::move(entry)});
  } else {
    TP_RETURN_IF_ERROR(CheckTenant(words[1]));
    RateLimits limits;
    TP_ASSIGN_OR_RETURN(limits.requests, ParseRate("requests", words[2]));
    TP_ASSIGN_OR_RETURN(limits.generated_tokens, ParseRate("tokens", words[3]));
    if (!limits_.emplace(words[1], limits).second) {
      return absl::InvalidArgumentError(absl::StrCat("the rate of tenant ", words[1], " is there already"));
    }
  }
  return absl::OkStatus();
}

const AccessTable::Entry* AccessTable::FindToken(const Sha256::Digest& digest) const {
  const Entry* found = nullptr;
  for (const Token& token : tokens_) {
    if (CRYPTO_memcmp(token.digest.data(), digest.data(), digest.size()) == 0) found = &token.entry;
  }
  return found;
}

const AccessTable::Entry* AccessTable::FindCertificate(absl::Span<const std::string> names) const {
  for (const Certificate& certificate : certificates_) {
    if (std::find(names.begin(), names.end(), certificate.name) != names.end()) return &certificate.entry;
  }
  return nullptr;
}

RateLimits AccessTable::LimitsOf(std::string_view tenant) const {
  auto found = limits_.find(tenant);
  if (found == limits_.end()) found = limits_.find(kAllTenants);
  return found == limits_.end() ? RateLimits() : found->second;
}

}  // namespace tidepool
