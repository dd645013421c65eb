#include "client/http/api_keys.h"

#include <openssl/crypto.h>
#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"

namespace tidepool::http {
namespace {

constexpr size_t kMaxFileBytes = 4 << 20;
constexpr std::string_view kDigestPrefix = "sha256:";

Sha256::Digest DigestOf(std::string_view key) { return Sha256().Add(key.data(), key.size()).Finish(); }

absl::StatusOr<Sha256::Digest> ReadKey(std::string_view key) {
  Sha256::Digest digest;
  if (key.starts_with(kDigestPrefix)) {
    const std::string_view hex = key.substr(kDigestPrefix.size());
    if (hex.size() != 2 * digest.size() ||
        !std::all_of(hex.begin(), hex.end(), [](unsigned char c) { return absl::ascii_isxdigit(c); })) {
      return absl::InvalidArgumentError("sha256: is not followed by 64 hexadecimal digits");
    }
    const std::string bytes = absl::HexStringToBytes(absl::string_view(hex.data(), hex.size()));
    std::copy(bytes.begin(), bytes.end(), digest.begin());
    return digest;
  }
  if (key.size() < kMinApiKeyBytes || key.size() > kMaxApiKeyBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the key has ", key.size(), " bytes, ", kMinApiKeyBytes, " to ", kMaxApiKeyBytes, " are allowed"));
  }
  return DigestOf(key);
}

// Says when a file is another one.
std::string IdentityOf(const std::string& path) {
  struct stat found {};
  if (stat(path.c_str(), &found) != 0) return "missing";
  return absl::StrCat(found.st_dev, " ", found.st_ino, " ", found.st_size, " ", found.st_mtim.tv_sec, " ",
                      found.st_mtim.tv_nsec);
}

absl::StatusOr<ApiKeySet> ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string text(std::istreambuf_iterator<char>(in), {});
  if (!in.good() && !in.eof()) return absl::InvalidArgumentError(absl::StrCat("cannot read ", path));
  if (text.size() > kMaxFileBytes) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", text.size(), " bytes, at most ", kMaxFileBytes));
  }
  absl::StatusOr<ApiKeySet> keys = ApiKeySet::Parse(text);
  if (keys.ok()) return keys;
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", keys.status().message()));
}

}  // namespace

bool IsTenantName(std::string_view name) {
  return !name.empty() && name.size() <= 128 && std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
  });
}

absl::StatusOr<ApiKeySet> ApiKeySet::Parse(std::string_view text) {
  ApiKeySet set;
  int number = 0;
  for (const absl::string_view line : absl::StrSplit(absl::string_view(text.data(), text.size()), '\n')) {
    ++number;
    const std::vector<std::string> words = absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
    if (words.empty() || words[0].starts_with('#')) continue;
    if (words.size() != 2) {
      return absl::InvalidArgumentError(
          absl::StrCat("line ", number, ": ", words.size(), " words, not tenant and key"));
    }
    if (!IsTenantName(words[0])) {
      return absl::InvalidArgumentError(
          absl::StrCat("line ", number, ": a tenant is 1 to 128 letters, digits, dots, hyphens and underscores"));
    }
    const absl::StatusOr<Sha256::Digest> digest = ReadKey(words[1]);
    if (!digest.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("line ", number, ": ", digest.status().message()));
    }
    set.entries_.push_back({*digest, words[0]});
    if (set.entries_.size() > kMaxApiKeys) {
      return absl::InvalidArgumentError(absl::StrCat("more than ", kMaxApiKeys, " keys"));
    }
  }
  if (set.entries_.empty()) return absl::InvalidArgumentError("has no keys");
  return set;
}

std::optional<std::string> ApiKeySet::TenantOf(std::string_view key) const {
  const Sha256::Digest digest = DigestOf(key);
  const Entry* found = nullptr;
  for (const Entry& entry : entries_) {
    if (CRYPTO_memcmp(entry.digest.data(), digest.data(), digest.size()) == 0) found = &entry;
  }
  if (found == nullptr) return std::nullopt;
  return found->tenant;
}

std::set<std::string> ApiKeySet::Tenants() const {
  std::set<std::string> tenants;
  for (const Entry& entry : entries_) tenants.insert(entry.tenant);
  return tenants;
}

absl::StatusOr<std::unique_ptr<ApiKeys>> ApiKeys::Open(const std::string& path) {
  auto keys = std::make_unique<ApiKeys>();
  keys->path_ = path;
  TP_RETURN_IF_ERROR(keys->ReloadIfChanged().status());
  return keys;
}

std::set<std::string> ApiKeys::Tenants() const {
  MutexLock lock(&mutex_);
  return keys_.Tenants();
}

absl::StatusOr<std::string> ApiKeys::TenantOf(const std::string& authorization) const {
  if (path_.empty()) return std::string(kDefaultTenant);
  const size_t blank = authorization.find(' ');
  if (!absl::EqualsIgnoreCase(authorization.substr(0, blank), "Bearer") || blank == std::string::npos) {
    return absl::UnauthenticatedError("an API key is needed: Authorization: Bearer KEY");
  }
  MutexLock lock(&mutex_);
  std::optional<std::string> tenant =
      keys_.TenantOf(std::string(absl::StripAsciiWhitespace(absl::string_view(authorization).substr(blank))));
  if (!tenant.has_value()) return absl::UnauthenticatedError("the API key is not known here");
  return *std::move(tenant);
}

absl::StatusOr<bool> ApiKeys::ReloadIfChanged() {
  if (path_.empty()) return false;
  // Looked at before it is read: what is written meanwhile is seen the next time.
  std::string now = IdentityOf(path_);
  {
    MutexLock lock(&mutex_);
    if (now == seen_) return false;
    seen_ = std::move(now);
  }
  TP_ASSIGN_OR_RETURN(ApiKeySet keys, ReadFile(path_));
  MutexLock lock(&mutex_);
  keys_ = std::move(keys);
  return true;
}

}  // namespace tidepool::http
