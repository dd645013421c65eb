// A token and its logit.
#ifndef TIDEPOOL_WORKER_BACKEND_TOKEN_LOGIT_H_
#define TIDEPOOL_WORKER_BACKEND_TOKEN_LOGIT_H_

#include <cstdint>

namespace tidepool {

struct TokenLogit {
  float logit = 0;
  int32_t token = 0;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_BACKEND_TOKEN_LOGIT_H_
