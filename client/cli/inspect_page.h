// The page of `tidepool inspect`: one file with everything in it, which loads nothing from anywhere.
#ifndef TIDEPOOL_CLIENT_CLI_INSPECT_PAGE_H_
#define TIDEPOOL_CLIENT_CLI_INSPECT_PAGE_H_

#include <string>
#include <string_view>

namespace tidepool::cli {

// json: as InspectionJson gives it. The page's policy (Content-Security-Policy) lets only its own script run, by hash,
// and no request leave it; what the prompt says is data throughout.
std::string InspectionPage(std::string_view json);

}  // namespace tidepool::cli

#endif  // TIDEPOOL_CLIENT_CLI_INSPECT_PAGE_H_
