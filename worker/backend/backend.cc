#include "worker/backend/backend.h"

#include "absl/strings/str_cat.h"
#include "worker/model/model.h"

namespace tidepool {
namespace {

constexpr int kMostHeadDim = 256;

}  // namespace

KvLayout LayoutOf(const Model& model, KvType type) {
  KvLayout layout;
  layout.model_fingerprint = model.fingerprint();
  layout.layers = model.config().layers;
  layout.kv_heads = model.config().kv_heads;
  layout.head_dim = model.config().head_dim;
  layout.type = type;
  return layout;
}

absl::Status CheckShape(const ModelConfig& config) {
  if (config.head_dim > kMostHeadDim || config.head_dim % 16 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("head_dim: ", config.head_dim, " is not a multiple of 16 up to ", kMostHeadDim));
  }
  return absl::OkStatus();
}

absl::StatusOr<int32_t> PagesOf(const BackendOptions& options, const KvLayout& layout, size_t page_bytes) {
  const size_t least = page_bytes * static_cast<size_t>(layout.layers) * layout.kv_heads;
  const size_t pages = options.kv_bytes / page_bytes;
  if (options.kv_bytes < least || pages > INT32_MAX) {
    return absl::InvalidArgumentError(absl::StrCat("device_kv_bytes: ", options.kv_bytes, " is not in ", least,
                                                   " (one page for each layer and kv head) to ",
                                                   page_bytes * size_t{INT32_MAX}));
  }
  return static_cast<int32_t>(pages);
}

}  // namespace tidepool
