#include "security/rpc/channel_flags.h"

#include <cstdlib>

#include "absl/flags/flag.h"

ABSL_FLAG(std::string, tls_cert, "", "PEM file of this process's own certificate, with those that lead to its CA");
ABSL_FLAG(std::string, tls_key, "", "PEM file of its private key");
ABSL_FLAG(std::string, tls_ca, "", "PEM file of the CA whose certificates are trusted; towards a service: speak TLS");
ABSL_FLAG(std::string, tls_server_name, "",
          "name that the service's certificate must have; empty: the host of its address");
ABSL_FLAG(std::string, token_file, "", "file with the bearer token that a service is shown");

namespace tidepool {
namespace {

std::string FlagOr(const std::string& flag, const char* variable) {
  if (!flag.empty()) return flag;
  const char* value = std::getenv(variable);
  return value != nullptr ? value : "";
}

}  // namespace

ChannelSecurityOptions ChannelSecurityFromFlags() {
  ChannelSecurityOptions options;
  options.tls_ca = FlagOr(absl::GetFlag(FLAGS_tls_ca), "TIDEPOOL_TLS_CA");
  options.tls_cert = FlagOr(absl::GetFlag(FLAGS_tls_cert), "TIDEPOOL_TLS_CERT");
  options.tls_key = FlagOr(absl::GetFlag(FLAGS_tls_key), "TIDEPOOL_TLS_KEY");
  options.tls_server_name = FlagOr(absl::GetFlag(FLAGS_tls_server_name), "TIDEPOOL_TLS_SERVER_NAME");
  options.token_file = FlagOr(absl::GetFlag(FLAGS_token_file), "TIDEPOOL_TOKEN_FILE");
  if (absl::GetFlag(FLAGS_token_file).empty()) options.token = FlagOr("", "TIDEPOOL_TOKEN");
  return options;
}

}  // namespace tidepool
