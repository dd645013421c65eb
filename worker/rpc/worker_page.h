// The web page of a worker, for people who watch it: what its sequences hold on the device, layer by layer, and its
// counters. One file without anything from elsewhere; it asks for /picture.json each second.
#ifndef TIDEPOOL_WORKER_RPC_WORKER_PAGE_H_
#define TIDEPOOL_WORKER_RPC_WORKER_PAGE_H_

#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "metrics/page_server.h"

namespace tidepool {

class Engine;  // worker/engine/engine.h

// A loopback address, host:port; empty is fine, too: no page. Whoever reaches it sees request ids and tenants.
// InvalidArgument naming page_address.
absl::Status CheckPageAddress(const std::string& address);

// "/" and "/picture.json". The engine outlives them.
std::map<std::string, Page> WorkerPages(Engine* engine);

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_RPC_WORKER_PAGE_H_
