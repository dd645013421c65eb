#include "client/cli/inspect_page.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/check.h"
#include "base/sha256.h"

namespace tidepool::cli {

// The files of client/cli/inspect, compiled in (scripts/cmake/embed_text.cmake).
extern const char kInspectPageHtml[];
extern const char kInspectPageCss[];
extern const char kInspectDataJs[];
extern const char kInspectColoursJs[];
extern const char kInspectSummaryJs[];
extern const char kInspectMapsJs[];
extern const char kInspectPointingJs[];
extern const char kInspectTextsJs[];
extern const char kInspectStartJs[];

std::string InspectionPage(std::string_view json) {
  TIDEPOOL_CHECK(json.find('<') == std::string_view::npos);  // it cannot end the element that it stands in
  const std::string script = absl::StrCat(kInspectDataJs, kInspectColoursJs, kInspectSummaryJs, kInspectMapsJs,
                                          kInspectPointingJs, kInspectTextsJs, kInspectStartJs);
  const Sha256::Digest digest = Sha256().Add(script.data(), script.size()).Finish();
  const std::string hash =
      absl::Base64Escape(absl::string_view(reinterpret_cast<const char*>(digest.data()), digest.size()));
  // One pass, so that nothing inside the data is taken for a mark.
  return absl::StrReplaceAll(kInspectPageHtml, {{"@SCRIPT_HASH@", hash},
                                                {"@STYLE@", kInspectPageCss},
                                                {"@SCRIPT@", script},
                                                {"@DATA@", absl::string_view(json.data(), json.size())}});
}

}  // namespace tidepool::cli
