// Who may use a service, as a file of lines says it:
//
//   # comment
//   token SHA256 TENANT ROLE           the bearer token whose SHA-256 (64 hexadecimal digits) this is
//   cert  NAME   TENANT ROLE           a client certificate with this common or alternative name
//   rate  TENANT REQUESTS TOKENS       most requests, and most generated tokens, of the tenant in a minute
//
// ROLE is user, worker or admin. TENANT is a name of 1 to 128 visible ASCII characters, or * for all (not for a user;
// for a rate: of each tenant that has no line of its own). REQUESTS and TOKENS are 1 to 1e12, or - for no limit. A
// value: immutable once parsed.
#ifndef TIDEPOOL_SECURITY_ACCESS_TABLE_H_
#define TIDEPOOL_SECURITY_ACCESS_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/sha256.h"

namespace tidepool {

// What a role may call: security/caller.h.
enum class Role : uint8_t { kUser, kWorker, kAdmin };
std::string_view RoleName(Role role);

inline constexpr std::string_view kAllTenants = "*";
inline constexpr size_t kMaxAccessFileBytes = size_t{1} << 20;
inline constexpr size_t kMaxAccessLines = 4096;

// Of one tenant, in a minute. 0: no limit.
struct RateLimits {
  int64_t requests = 0;
  int64_t generated_tokens = 0;
  friend bool operator==(const RateLimits&, const RateLimits&) = default;
};

class AccessTable {
 public:
  struct Entry {
    std::string name;  // for logs; never the token: "token 1a2b3c4d" (of its hash) or "certificate NAME"
    std::string tenant;
    Role role = Role::kUser;
  };

  // InvalidArgument naming the line and what it may hold.
  static absl::StatusOr<AccessTable> Parse(std::string_view text);

  // Null: nobody's. Compares with all of them, each in constant time.
  const Entry* FindToken(const Sha256::Digest& digest) const;
  // The first line that has one of the names. Null: none has.
  const Entry* FindCertificate(absl::Span<const std::string> names) const;
  RateLimits LimitsOf(std::string_view tenant) const;
  size_t size() const { return tokens_.size() + certificates_.size(); }  // of tokens and certificates

 private:
  absl::Status ParseLine(absl::Span<const std::string> words);

  struct Token {
    Sha256::Digest digest;
    Entry entry;
  };
  struct Certificate {
    std::string name;
    Entry entry;
  };
  std::vector<Token> tokens_;
  std::vector<Certificate> certificates_;
  std::map<std::string, RateLimits, std::less<>> limits_;
};

// How a token is written into the file.
Sha256::Digest TokenDigest(std::string_view token);

}  // namespace tidepool

#endif  // TIDEPOOL_SECURITY_ACCESS_TABLE_H_
