// How we speak TLS to RESP servers: one OpenSSL context for all connections, whose headers stay in the .cc. Immutable
// once made; connections in several threads share it.
#ifndef TIDEPOOL_CACHESERVICE_RESP_TLS_CONTEXT_H_
#define TIDEPOOL_CACHESERVICE_RESP_TLS_CONTEXT_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"

struct ssl_ctx_st;

namespace tidepool {

struct RespTlsOptions {
  std::string ca_file;    // PEM, who may sign the servers' certificates; empty: the system's
  std::string cert_file;  // PEM, our own chain, with key_file; empty: we show none
  std::string key_file;
  std::string server_name;  // that all servers' certificates must carry; empty: the host we connect to
};

class RespTlsContext {
 public:
  // InvalidArgument naming the file that cannot be used.
  static absl::StatusOr<std::shared_ptr<const RespTlsContext>> Make(const RespTlsOptions& options);
  ~RespTlsContext();
  RespTlsContext(const RespTlsContext&) = delete;
  RespTlsContext& operator=(const RespTlsContext&) = delete;

  ssl_ctx_st* get() const { return context_; }
  const std::string& server_name() const { return server_name_; }

 private:
  RespTlsContext(ssl_ctx_st* context, std::string server_name);
  ssl_ctx_st* const context_;
  const std::string server_name_;
};

// What OpenSSL says about the last failure of this thread, in one line; empties its queue.
std::string LastTlsError();

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_RESP_TLS_CONTEXT_H_
