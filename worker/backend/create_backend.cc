#include "worker/backend/create_backend.h"

#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/backend/cuda/create.h"
#include "worker/kernels/cuda/device.h"
#include "worker/kernels/cuda/host_device.h"

namespace tidepool {
namespace {

// N of cuda:N; cuda is the first.
std::optional<int> CudaOrdinal(const std::string& device) {
  if (device == "cuda") return 0;
  int ordinal = 0;
  if (!absl::StartsWith(device, "cuda:") || !absl::SimpleAtoi(device.substr(5), &ordinal) || ordinal < 0)
    return std::nullopt;
  return ordinal;
}

absl::StatusOr<std::unique_ptr<cuda::Device>> OpenCuda(int ordinal) {
#ifdef TIDEPOOL_CUDA
  return cuda::OpenCudaDevice(ordinal);
#else
  return absl::FailedPreconditionError(
      absl::StrCat("device: cuda:", ordinal, ": this build has no CUDA (cmake --preset cuda)"));
#endif
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> CreateBackend(const std::string& device, std::shared_ptr<const Model> model,
                                                       const BackendOptions& options) {
  if (options.device_memory != 0 && !(options.device_memory >= 0.1 && options.device_memory <= 0.95)) {
    return absl::InvalidArgumentError(absl::StrCat("device_memory: ", options.device_memory, " is not in 0.1 to 0.95"));
  }
  if (device == "cpu") {
    if (options.device_memory == 0) return CreateCpuBackend(std::move(model), options);
    return absl::InvalidArgumentError("device_memory: for device cpu give device_kv_bytes");
  }
  if (device == "emulated") return cuda::CreateOn(cuda::MakeHostDevice(options.threads), std::move(model), options);
  if (const std::optional<int> ordinal = CudaOrdinal(device); ordinal.has_value()) {
    TP_ASSIGN_OR_RETURN(std::unique_ptr<cuda::Device> opened, OpenCuda(*ordinal));
    return cuda::CreateOn(std::move(opened), std::move(model), options);
  }
  return absl::InvalidArgumentError(absl::StrCat("device: '", device, "' is not cpu, cuda, cuda:N or emulated"));
}

}  // namespace tidepool
