// How a client of ours talks to a service: plain text, or TLS that checks the service's certificate and its name and
// may show one of its own; with a bearer token or without. Used by the worker towards the cache and by the client
// library. Certificate and token files are read again when they change. On Unix sockets nothing is encrypted: the
// kernel keeps others out. In plain text a token is only ever sent to this machine. Immutable, thread-safe.
#ifndef TIDEPOOL_SECURITY_RPC_CHANNEL_SECURITY_H_
#define TIDEPOOL_SECURITY_RPC_CHANNEL_SECURITY_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace grpc {
class Channel;
class ChannelArguments;
class ChannelCredentials;
}  // namespace grpc

namespace tidepool {

struct ChannelSecurityOptions {
  std::string tls_ca;             // PEM file of who signs services' certificates; empty: plain text
  std::string tls_cert, tls_key;  // PEM files of the client's own identity; both or none
  std::string tls_server_name;    // that the service's certificate must have; empty: the host of its address
  std::string token, token_file;  // bearer token, or the file that holds it; at most one of them
};

class ChannelSecurity {
 public:
  // What Create says of options, without starting threads. InvalidArgument naming the flag.
  static absl::Status Check(const ChannelSecurityOptions& options);
  // Certificate files are watched by threads: a process that takes its signals by sigwait blocks them before.
  static absl::StatusOr<std::shared_ptr<const ChannelSecurity>> Create(ChannelSecurityOptions options);
  ~ChannelSecurity();

 private:
  friend std::shared_ptr<grpc::Channel> OpenChannel(const ChannelSecurity* security, const std::string& address,
                                                    grpc::ChannelArguments* arguments);
  friend std::string Explained(const ChannelSecurity* security, const std::string& message);

  class Impl;
  explicit ChannelSecurity(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

// A channel to host:port or unix:PATH. security: null is plain text without a token. Does not connect yet.
std::shared_ptr<grpc::Channel> OpenChannel(const ChannelSecurity* security, const std::string& address,
                                           grpc::ChannelArguments* arguments);

// gRPC's message of a call that ended as Unavailable, with what it means for the flags where that can be told.
std::string Explained(const ChannelSecurity* security, const std::string& message);

}  // namespace tidepool

#endif  // TIDEPOOL_SECURITY_RPC_CHANNEL_SECURITY_H_
