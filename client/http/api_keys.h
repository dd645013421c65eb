// Who may ask: keys and the tenants that they stand for, from a file that is read again when it changes. Thread-safe.
//
// A line of the file is a tenant and a key, or the key's SHA-256, so that the file need not hold the key itself:
//   acme    sk-4f1b...
//   initech sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
// Empty lines and those that begin with # are skipped.
#ifndef TIDEPOOL_CLIENT_HTTP_API_KEYS_H_
#define TIDEPOOL_CLIENT_HTTP_API_KEYS_H_

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "base/sha256.h"

namespace tidepool::http {

inline constexpr char kDefaultTenant[] = "default";
inline constexpr size_t kMaxApiKeys = 10'000;
inline constexpr size_t kMinApiKeyBytes = 8;
inline constexpr size_t kMaxApiKeyBytes = 256;

class ApiKeySet {
 public:
  // InvalidArgument naming the line; never its key.
  static absl::StatusOr<ApiKeySet> Parse(std::string_view text);

  // Takes the same time whichever key it is, and whether it is one.
  std::optional<std::string> TenantOf(std::string_view key) const;
  std::set<std::string> Tenants() const;

 private:
  struct Entry {
    Sha256::Digest digest;
    std::string tenant;
  };
  std::vector<Entry> entries_;
};

class ApiKeys {
 public:
  // No keys: everybody is the default tenant.
  ApiKeys() = default;
  // InvalidArgument when the file cannot be read or is wrong.
  static absl::StatusOr<std::unique_ptr<ApiKeys>> Open(const std::string& path);

  // The tenant of an Authorization header: "Bearer KEY". Unauthenticated saying what is wrong.
  absl::StatusOr<std::string> TenantOf(const std::string& authorization) const;
  std::set<std::string> Tenants() const;
  // Reads the file when it is another one than before, or of another time or size: true. A file that is wrong changes
  // nothing and is an error once.
  absl::StatusOr<bool> ReloadIfChanged();

 private:
  std::string path_;  // empty: no keys
  mutable Mutex mutex_;
  ApiKeySet keys_ ABSL_GUARDED_BY(mutex_);
  std::string seen_ ABSL_GUARDED_BY(mutex_);  // which file it was
};

// A tenant's name: 1 to 128 letters, digits and . _ -
bool IsTenantName(std::string_view name);

}  // namespace tidepool::http

#endif  // TIDEPOOL_CLIENT_HTTP_API_KEYS_H_
