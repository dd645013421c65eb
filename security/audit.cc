#include "security/audit.h"

#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/log.h"

namespace tidepool {
namespace {

std::string Quoted(std::string_view text) {
  return absl::StrCat("\"", absl::CEscape(absl::string_view(text.data(), text.size())), "\"");
}

std::string Who(std::string_view name, std::string_view tenant, std::string_view method) {
  return absl::StrCat("caller=", Quoted(name), " tenant=", Quoted(tenant), " call=", Quoted(method));
}

}  // namespace

void Audit(const Caller& caller, std::string_view method, std::string_view target, const absl::Status& result) {
  TP_LOG(Info, "audit", Who(caller.name, caller.tenant, method), " target=", Quoted(target),
         " result=", absl::StatusCodeToString(result.code()));
}

bool DenialLog::Add(const Caller* caller, std::string_view method, const absl::Status& why) {
  int64_t left_out = 0;
  {
    MutexLock lock(&mutex_);
    const absl::Time now = clock_();
    if (now - second_ >= absl::Seconds(1) || now < second_) {
      second_ = now;
      written_ = 0;
    }
    if (written_ >= kMostPerSecond) {
      ++left_out_;
      return false;
    }
    ++written_;
    std::swap(left_out, left_out_);
  }
  TP_LOG(Warning, "audit",
         Who(caller != nullptr ? caller->name : "unknown", caller != nullptr ? caller->tenant : "", method),
         " result=", absl::StatusCodeToString(why.code()),
         left_out > 0 ? absl::StrCat(" left_out=", left_out) : std::string());
  return true;
}

}  // namespace tidepool
