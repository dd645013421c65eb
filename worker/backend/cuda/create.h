// The `cuda` backend on a device.
#ifndef TIDEPOOL_WORKER_BACKEND_CUDA_CREATE_H_
#define TIDEPOOL_WORKER_BACKEND_CUDA_CREATE_H_

#include <memory>

#include "absl/status/statusor.h"
#include "worker/backend/backend.h"

namespace tidepool::cuda {

class Device;

// InvalidArgument naming the option or field; ResourceExhausted when weights and pages do not fit.
absl::StatusOr<std::unique_ptr<Backend>> CreateOn(std::unique_ptr<Device> device, std::shared_ptr<const Model> model,
                                                  const BackendOptions& options);

}  // namespace tidepool::cuda

#endif  // TIDEPOOL_WORKER_BACKEND_CUDA_CREATE_H_
