// A backend by its device's name.
#ifndef TIDEPOOL_WORKER_BACKEND_CREATE_BACKEND_H_
#define TIDEPOOL_WORKER_BACKEND_CREATE_BACKEND_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "worker/backend/backend.h"

namespace tidepool {

// device: cpu; cuda or cuda:N, of a build with CUDA; emulated, the cuda backend with its kernels run on the host, for
// tests. InvalidArgument naming the field; NotFound, FailedPrecondition, ResourceExhausted: of the device.
absl::StatusOr<std::unique_ptr<Backend>> CreateBackend(const std::string& device, std::shared_ptr<const Model> model,
                                                       const BackendOptions& options);

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_BACKEND_CREATE_BACKEND_H_
