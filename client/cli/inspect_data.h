// The numbers of `tidepool inspect` as JSON: what --json prints and what the page draws, and nothing else is drawn.
// docs/inspect.md describes the fields.
#ifndef TIDEPOOL_CLIENT_CLI_INSPECT_DATA_H_
#define TIDEPOOL_CLIENT_CLI_INSPECT_DATA_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/types/span.h"
#include "client/cli/inspect_run.h"

namespace tidepool::cli {

// One line of JSON. At least one inspection; all of the same text. Pure ASCII, and without '<', '>' and '&', so that it
// can stand inside a script element of a page whatever the prompt says.
std::string InspectionJson(const Model& model, std::string_view question, absl::Span<const Inspection> inspections);

// The bytes of a token as text for people: bytes that are no UTF-8 become \xNN.
std::string ReadablePiece(std::string_view bytes);

}  // namespace tidepool::cli

#endif  // TIDEPOOL_CLIENT_CLI_INSPECT_DATA_H_
