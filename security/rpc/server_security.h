// How a service of ours is reached: plain text or TLS, and by whom. Every call, of any service on the port, is looked
// at before its handler sees it: health checks are open, else the caller is identified by a bearer token or his
// verified client certificate, and the method must be one that his role may call (security/caller.h). Handlers ask
// CallerOf for whose things the call is about. Refused calls are audit lines. Thread-safe.
#ifndef TIDEPOOL_SECURITY_RPC_SERVER_SECURITY_H_
#define TIDEPOOL_SECURITY_RPC_SERVER_SECURITY_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "security/access_control.h"
#include "security/caller.h"

namespace grpc {
class ServerContextBase;
class ServerCredentials;
}  // namespace grpc

namespace tidepool {

struct ServerSecurityOptions {
  std::string tls_cert, tls_key;    // PEM files of the service's identity; both, or none: plain text
  std::string tls_ca;               // PEM file of who signs clients' certificates; empty: none are asked for
  bool tls_require_client = false;  // refuse connections without a client certificate; needs tls_ca
  std::string access_file;          // security/access_table.h; empty: who connects may do everything
  bool insecure = false;            // listen anywhere, whatever is missing
};

class ServerSecurity {
 public:
  // For a port on `listen` (host:port or unix:PATH). InvalidArgument naming the flag, or, when the address can be
  // reached from other machines and callers are not authenticated over TLS, what to give. From the first one on
  // messages that cannot be parsed are answered and not logged, in this process.
  static absl::StatusOr<std::unique_ptr<ServerSecurity>> Open(const ServerSecurityOptions& options,
                                                              const std::string& listen);

  // For AddListeningPort. Unix sockets are plain text.
  std::shared_ptr<grpc::ServerCredentials> Credentials() const;
  // Of a call that came in through those. Unauthenticated when his entry has gone since.
  absl::StatusOr<Caller> CallerOf(const grpc::ServerContextBase& call) const;
  AccessControl* access() const { return access_.get(); }

 private:
  ServerSecurity(const ServerSecurityOptions& options, bool tls, std::shared_ptr<AccessControl> access)
      : options_(options), tls_(tls), access_(std::move(access)) {}

  const ServerSecurityOptions options_;
  const bool tls_;
  const std::shared_ptr<AccessControl> access_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_SECURITY_RPC_SERVER_SECURITY_H_
