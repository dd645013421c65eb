#include "cacheservice/resp/resolve.h"

#include <netdb.h>
#include <netinet/in.h>

#include <cstring>
#include <memory>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/mutex.h"

namespace tidepool {
namespace {

struct Lookup {
  Mutex mutex;
  CondVar done;
  bool finished ABSL_GUARDED_BY(mutex) = false;
  int error ABSL_GUARDED_BY(mutex) = 0;
  std::vector<SocketAddress> addresses ABSL_GUARDED_BY(mutex);
};

// The result of getaddrinfo.
int LookUp(const std::string& host, int port, int flags, std::vector<SocketAddress>* addresses) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.c_str(), absl::StrCat(port).c_str(), &hints, &found);
  if (error != 0) return error;
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    SocketAddress address;
    if (at->ai_addrlen > sizeof address.storage) continue;
    std::memcpy(&address.storage, at->ai_addr, at->ai_addrlen);
    address.size = at->ai_addrlen;
    addresses->push_back(address);
  }
  freeaddrinfo(found);
  return 0;
}

}  // namespace

absl::StatusOr<std::vector<SocketAddress>> ResolveHost(const std::string& host, int port, absl::Time deadline) {
  std::vector<SocketAddress> addresses;
  if (LookUp(host, port, AI_NUMERICHOST, &addresses) == 0 && !addresses.empty()) return addresses;
  auto lookup = std::make_shared<Lookup>();
  std::thread([lookup, host, port] {
    std::vector<SocketAddress> found;
    const int error = LookUp(host, port, /*flags=*/0, &found);
    MutexLock lock(&lookup->mutex);
    lookup->finished = true;
    lookup->error = error;
    lookup->addresses = std::move(found);
    lookup->done.Signal();
  }).detach();
  const auto until = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(deadline - absl::Now());
  MutexLock lock(&lookup->mutex);
  while (!lookup->finished) {
    if (!lookup->done.WaitUntil(&lookup->mutex, until) && !lookup->finished) {
      return absl::DeadlineExceededError(absl::StrCat("host '", host, "' was not found in time"));
    }
  }
  if (lookup->error != 0 || lookup->addresses.empty()) {
    return absl::UnavailableError(absl::StrCat(
        "host '", host, "' was not found: ", lookup->error != 0 ? gai_strerror(lookup->error) : "it has no address"));
  }
  return lookup->addresses;
}

}  // namespace tidepool
