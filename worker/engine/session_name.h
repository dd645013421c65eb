// What a session is called. Sessions of different tenants have nothing to do with one another, whatever their ids.
#ifndef TIDEPOOL_WORKER_ENGINE_SESSION_NAME_H_
#define TIDEPOOL_WORKER_ENGINE_SESSION_NAME_H_

#include <string>
#include <utility>

namespace tidepool {

struct SessionName {
  std::string id;
  std::string tenant;  // empty: EngineOptions::tenant

  friend bool operator==(const SessionName&, const SessionName&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const SessionName& name) {
    return H::combine(std::move(h), name.id, name.tenant);
  }
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_ENGINE_SESSION_NAME_H_
