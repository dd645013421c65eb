#include "cacheservice/tiers/block_value.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "cacheservice/api/block_cache.h"
#include "policies/kv/block_codec.h"

namespace tidepool {

absl::Status CheckNewBlockValue(const BlockId& id, std::string_view value) {
  if (value.size() > kMaxBlockValueBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("value of ", value.size(), " bytes is larger than ", kMaxBlockValueBytes));
  }
  TP_ASSIGN_OR_RETURN(const BlockView view, BlockView::Parse(value));
  if (view.layer() != id.layer) {
    return absl::InvalidArgumentError(absl::StrCat("layer ", id.layer, " is not the value's layer ", view.layer()));
  }
  return view.VerifyRows();
}

absl::Status VerifyBlockValue(const BlockId& id, std::string_view value) {
  TP_ASSIGN_OR_RETURN(const BlockView view, BlockView::Parse(value));
  if (view.layer() != id.layer) {
    return absl::DataLossError(absl::StrCat("block value: of layer ", view.layer(), ", stored as layer ", id.layer));
  }
  return view.VerifyRows();
}

}  // namespace tidepool
