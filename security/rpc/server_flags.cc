#include "security/rpc/server_flags.h"

#include "absl/flags/declare.h"
#include "absl/flags/flag.h"

ABSL_DECLARE_FLAG(std::string, tls_cert);
ABSL_DECLARE_FLAG(std::string, tls_key);
ABSL_DECLARE_FLAG(std::string, tls_ca);
ABSL_FLAG(bool, tls_require_client, false, "refuse clients without a certificate that --tls-ca signed");
ABSL_FLAG(std::string, access_file, "",
          "who may call: tokens and certificates with tenant and role, rates (docs/operations.md); read again when it "
          "changes; empty: whoever connects");
ABSL_FLAG(bool, insecure, false, "listen on other than loopback addresses without TLS or without knowing who calls");

namespace tidepool {

ServerSecurityOptions ServerSecurityFromFlags() {
  ServerSecurityOptions options;
  options.tls_cert = absl::GetFlag(FLAGS_tls_cert);
  options.tls_key = absl::GetFlag(FLAGS_tls_key);
  options.tls_ca = absl::GetFlag(FLAGS_tls_ca);
  options.tls_require_client = absl::GetFlag(FLAGS_tls_require_client);
  options.access_file = absl::GetFlag(FLAGS_access_file);
  options.insecure = absl::GetFlag(FLAGS_insecure);
  return options;
}

}  // namespace tidepool
