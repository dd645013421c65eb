#include "security/access_control.h"

#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace tidepool {
namespace {

constexpr absl::Duration kLook = absl::Seconds(1);

}  // namespace

absl::StatusOr<std::unique_ptr<AccessControl>> AccessControl::Open(const std::string& path,
                                                                   std::function<absl::Time()> clock) {
  std::unique_ptr<AccessControl> control(new AccessControl(path, std::move(clock)));
  if (path.empty()) return control;
  MutexLock lock(&control->mutex_);
  control->looked_ = control->clock_();
  TP_RETURN_IF_ERROR(control->Load());
  return control;
}

absl::Status AccessControl::Load() {
  stamp_ = FileStamp::Of(path_);
  TP_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path_, kMaxAccessFileBytes));
  absl::StatusOr<AccessTable> table = AccessTable::Parse(text);
  if (!table.ok()) return absl::InvalidArgumentError(absl::StrCat(path_, ": ", table.status().message()));
  table_ = std::make_shared<const AccessTable>(*std::move(table));
  return absl::OkStatus();
}

std::shared_ptr<const AccessTable> AccessControl::Table() {
  MutexLock lock(&mutex_);
  const absl::Time now = clock_();
  if (now - looked_ < kLook) return table_;
  looked_ = now;
  if (FileStamp::Of(path_) == stamp_) return table_;
  if (const absl::Status loaded = Load(); loaded.ok()) {
    TP_LOG(Info, "security", path_, ": read again, ", table_->size(), " tokens and certificates");
  } else {
    TP_LOG(Error, "security", "what was there before stays in force: ", loaded.message());
  }
  return table_;
}

absl::StatusOr<Caller> AccessControl::Identify(std::optional<std::string_view> authorization,
                                               absl::Span<const std::string> certificate_names) {
  if (open_to_all()) return Caller::Anyone();
  const std::shared_ptr<const AccessTable> table = Table();
  const AccessTable::Entry* entry = nullptr;
  if (authorization.has_value()) {
    absl::string_view token(authorization->data(), authorization->size());
    if (!absl::StartsWithIgnoreCase(token, "bearer ")) {
      return absl::UnauthenticatedError("authorization: is not 'Bearer TOKEN'");
    }
    token = absl::StripAsciiWhitespace(token.substr(7));
    entry = table->FindToken(TokenDigest({token.data(), token.size()}));
    if (entry == nullptr) return absl::UnauthenticatedError("authorization: the token is not known here");
  } else {
    entry = table->FindCertificate(certificate_names);
  }
  if (entry != nullptr) return Caller{.name = entry->name, .tenant = entry->tenant, .role = entry->role};
  if (certificate_names.empty()) {
    return absl::UnauthenticatedError("a token is needed: metadata 'authorization: Bearer TOKEN' (--token-file)");
  }
  return absl::UnauthenticatedError(absl::StrCat("the client certificate (", absl::StrJoin(certificate_names, ", "),
                                                 ") is not known here, and no token was given (--token-file)"));
}

RateLimits AccessControl::LimitsOf(std::string_view tenant) {
  return open_to_all() ? RateLimits() : Table()->LimitsOf(tenant);
}

}  // namespace tidepool
