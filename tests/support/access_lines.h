// Lines of access files (security/access_table.h).
#ifndef TIDEPOOL_TESTS_SUPPORT_ACCESS_LINES_H_
#define TIDEPOOL_TESTS_SUPPORT_ACCESS_LINES_H_

#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/sha256.h"
#include "security/access_table.h"

namespace tidepool::test {

inline std::string TokenLine(const std::string& token, const std::string& tenant, const std::string& role) {
  const Sha256::Digest digest = TokenDigest(token);
  return absl::StrCat("token ", absl::BytesToHexString({reinterpret_cast<const char*>(digest.data()), digest.size()}),
                      " ", tenant, " ", role, "\n");
}

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_SUPPORT_ACCESS_LINES_H_
