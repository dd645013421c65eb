#include "worker/engine/engine.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/limits.h"
#include "base/status_macros.h"
#include "worker/backend/create_backend.h"
#include "worker/engine/engine_loop.h"

namespace tidepool {

absl::Status ValidateEngineOptions(const EngineOptions& options) {
  auto in_range = [](const char* field, int64_t value, int64_t low, int64_t high) {
    if (value >= low && value <= high) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(field, ": ", value, " is not in ", low, " to ", high));
  };
  TP_RETURN_IF_ERROR(in_range("threads", options.threads, 1, 256));
  TP_RETURN_IF_ERROR(in_range("prefill_chunk_tokens", options.prefill_chunk_tokens, 1, 8192));
  if (options.decode_pace != 0 && !(options.decode_pace >= 1.1 && options.decode_pace <= 100)) {
    return absl::InvalidArgumentError(absl::StrCat("decode_pace: ", options.decode_pace, " is not 0 or in 1.1 to 100"));
  }
  return in_range("max_active_sequences", options.max_active_sequences, 1, kMaxActiveSequences);
}

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(EngineOptions options, std::shared_ptr<const Model> model,
                                                       BlockCache* cache, ManifestStore* manifests) {
  TP_RETURN_IF_ERROR(ValidateEngineOptions(options));
  if (model->config().heads / model->config().kv_heads > 16) {
    return absl::InvalidArgumentError(absl::StrCat("model: ", model->config().heads, " query heads on ",
                                                   model->config().kv_heads, " kv heads, at most 16 share one"));
  }
  BackendOptions backend_options;
  backend_options.threads = options.threads;
  backend_options.kv_bytes = options.device_kv_bytes;
  backend_options.device_memory = options.device_memory;
  backend_options.kv_type = options.kv_type;
  backend_options.f32_weights = options.f32_weights;
  TP_ASSIGN_OR_RETURN(std::unique_ptr<Backend> backend, CreateBackend(options.device, model, backend_options));
  return std::unique_ptr<Engine>(
      std::make_unique<EngineLoop>(std::move(options), std::move(model), std::move(backend), cache, manifests));
}

}  // namespace tidepool
