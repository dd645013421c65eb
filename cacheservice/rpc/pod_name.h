// The name of a pod among others: what decides which blocks are its own (policies/tier/rendezvous.h).
#ifndef TIDEPOOL_CACHESERVICE_RPC_POD_NAME_H_
#define TIDEPOOL_CACHESERVICE_RPC_POD_NAME_H_

#include <string>

#include "absl/status/statusor.h"

namespace tidepool {

class Database;

// `given`, or when that is empty the name that the database got when it was first opened: it goes where the data go,
// whatever the address. InvalidArgument: not 1 to 128 visible ASCII characters.
absl::StatusOr<std::string> PodName(const std::string& given, Database* database);

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_RPC_POD_NAME_H_
