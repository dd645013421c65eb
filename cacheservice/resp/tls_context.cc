#include "cacheservice/resp/tls_context.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace tidepool {
namespace {

absl::Status Unusable(const char* what, const std::string& file) {
  return absl::InvalidArgumentError(absl::StrCat(what, ": '", file, "' cannot be used: ", LastTlsError()));
}

}  // namespace

std::string LastTlsError() {
  std::string text = "unknown reason";
  for (unsigned long code = ERR_get_error(); code != 0; code = ERR_get_error()) {
    if (const char* reason = ERR_reason_error_string(code); reason != nullptr) {
      text = reason;
    } else if (ERR_SYSTEM_ERROR(code)) {
      text = std::strerror(ERR_GET_REASON(code));
    }
  }
  return text;
}

RespTlsContext::RespTlsContext(ssl_ctx_st* context, std::string server_name)
    : context_(context), server_name_(std::move(server_name)) {}

RespTlsContext::~RespTlsContext() { SSL_CTX_free(context_); }

absl::StatusOr<std::shared_ptr<const RespTlsContext>> RespTlsContext::Make(const RespTlsOptions& options) {
  if (options.cert_file.empty() != options.key_file.empty()) {
    return absl::InvalidArgumentError("the certificate file and the key file go together: only one is named");
  }
  ERR_clear_error();
  SSL_CTX* raw = SSL_CTX_new(TLS_client_method());
  if (raw == nullptr) return absl::InternalError(absl::StrCat("TLS: ", LastTlsError()));
  std::shared_ptr<const RespTlsContext> context(new RespTlsContext(raw, options.server_name));
  SSL_CTX_set_min_proto_version(raw, TLS1_2_VERSION);
  SSL_CTX_set_verify(raw, SSL_VERIFY_PEER, nullptr);
  SSL_CTX_set_mode(raw, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
  if (options.ca_file.empty()) {
    SSL_CTX_set_default_verify_paths(raw);
  } else if (SSL_CTX_load_verify_locations(raw, options.ca_file.c_str(), nullptr) != 1) {
    return Unusable("CA file", options.ca_file);
  }
  if (!options.cert_file.empty()) {
    if (SSL_CTX_use_certificate_chain_file(raw, options.cert_file.c_str()) != 1) {
      return Unusable("certificate file", options.cert_file);
    }
    if (SSL_CTX_use_PrivateKey_file(raw, options.key_file.c_str(), SSL_FILETYPE_PEM) != 1) {
      return Unusable("key file", options.key_file);
    }
    if (SSL_CTX_check_private_key(raw) != 1) return Unusable("key file", options.key_file);
  }
  return context;
}

}  // namespace tidepool
