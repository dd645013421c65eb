#include "security/rpc/server_security.h"

#include <google/protobuf/stubs/logging.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <map>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/listen_address.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "security/audit.h"
#include "security/pem_files.h"
#include "security/rpc/certificate_reload.h"

namespace tidepool {
namespace {

// What a call says of itself.
struct CallFacts {
  std::string_view method;
  std::optional<std::string_view> authorization;
  bool repeated = false;  // the header came more than once
};

void Take(std::string_view key, std::string_view value, CallFacts* facts) {
  if (key == ":path") facts->method = value;
  if (key != "authorization") return;
  facts->repeated = facts->authorization.has_value();
  facts->authorization = value;
}

std::string_view View(grpc::string_ref text) { return {text.data(), text.size()}; }
std::string_view View(const grpc_slice& slice) {
  return {reinterpret_cast<const char*>(GRPC_SLICE_START_PTR(slice)), GRPC_SLICE_LENGTH(slice)};
}

// Of a peer whose certificate was verified in the handshake. Others have none here.
std::vector<std::string> CertificateNames(const grpc::AuthContext& peer) {
  std::vector<std::string> names;
  for (const char* property : {GRPC_X509_CN_PROPERTY_NAME, GRPC_X509_SAN_PROPERTY_NAME}) {
    for (const grpc::string_ref& name : peer.FindPropertyValues(property)) names.emplace_back(View(name));
  }
  return names;
}

// Decides on every call before its handler, and writes refusals down.
class Gate : public grpc::AuthMetadataProcessor {
 public:
  explicit Gate(std::shared_ptr<AccessControl> access) : access_(std::move(access)) {}

  absl::Status Admit(const CallFacts& call, const std::vector<std::string>& certificate_names) {
    if (IsOpenMethod(call.method)) return absl::OkStatus();
    absl::StatusOr<Caller> caller = call.repeated ? absl::UnauthenticatedError("authorization: is given more than once")
                                                  : access_->Identify(call.authorization, certificate_names);
    absl::Status status = caller.ok() ? MayCall(*caller, call.method) : caller.status();
    if (!status.ok()) denials_.Add(caller.ok() ? &*caller : nullptr, call.method, status);
    return status;
  }

  bool IsBlocking() const override { return false; }  // but for a look at a small file, once a second
  grpc::Status Process(const InputMetadata& metadata, grpc::AuthContext* peer, OutputMetadata*,
                       OutputMetadata*) override {
    CallFacts call;
    for (const auto& [key, value] : metadata) Take(View(key), View(value), &call);
    const absl::Status status = Admit(call, CertificateNames(*peer));
    return {static_cast<grpc::StatusCode>(status.code()), std::string(status.message())};
  }

 private:
  const std::shared_ptr<AccessControl> access_;
  DenialLog denials_;
};

// gRPC's own plain-text credentials take no metadata processor, though the core below them does.
class PlainCredentials : public grpc::ServerCredentials {
 public:
  explicit PlainCredentials(std::shared_ptr<Gate> gate) : gate_(std::move(gate)) {}
  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {}

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    grpc_server_credentials* credentials = grpc_insecure_server_credentials_create();
    grpc_auth_metadata_processor processor{};
    processor.state = new std::shared_ptr<Gate>(gate_);
    processor.destroy = [](void* state) { delete static_cast<std::shared_ptr<Gate>*>(state); };
    processor.process = &Process;
    grpc_server_credentials_set_auth_metadata_processor(credentials, processor);
    const int port = grpc_server_add_http2_port(server, address.c_str(), credentials);
    grpc_server_credentials_release(credentials);
    return port;
  }

  static void Process(void* state, grpc_auth_context*, const grpc_metadata* metadata, size_t count,
                      grpc_process_auth_metadata_done_cb done, void* user_data) {
    CallFacts call;
    for (size_t i = 0; i < count; ++i) Take(View(metadata[i].key), View(metadata[i].value), &call);
    const absl::Status status = (*static_cast<std::shared_ptr<Gate>*>(state))->Admit(call, {});
    const std::string message(status.message());
    done(user_data, nullptr, 0, nullptr, 0, static_cast<grpc_status_code>(status.code()),
         status.ok() ? nullptr : message.c_str());
  }

  const std::shared_ptr<Gate> gate_;
};

// protobuf writes a line for each message that it refuses, such as one whose text is no UTF-8: callers would fill the
// log.
void LogOnlyFatal(google::protobuf::LogLevel level, const char*, int, const std::string& message) {
  if (level == google::protobuf::LOGLEVEL_FATAL) TP_LOG(Error, "rpc", message);
}

absl::Status CheckOptions(const ServerSecurityOptions& options) {
  if (options.tls_cert.empty() != options.tls_key.empty()) {
    return absl::InvalidArgumentError("--tls-cert, --tls-key: only one of them is given, both are needed");
  }
  if (options.tls_require_client && (options.tls_ca.empty() || options.tls_cert.empty())) {
    return absl::InvalidArgumentError(
        "--tls-require-client: needs --tls-cert and --tls-key, and --tls-ca, which says whose client certificates are "
        "trusted");
  }
  if (!options.tls_cert.empty()) {
    TP_RETURN_IF_ERROR(CheckIdentityFiles(options.tls_cert, options.tls_key, absl::Now()));
  }
  return options.tls_ca.empty() ? absl::OkStatus() : CheckAuthorityFile(options.tls_ca);
}

std::shared_ptr<grpc::ServerCredentials> TlsCredentials(const ServerSecurityOptions& options) {
  namespace tls = grpc::experimental;
  tls::TlsServerCredentialsOptions settings(std::make_shared<tls::FileWatcherCertificateProvider>(
      options.tls_key, options.tls_cert, options.tls_ca, kCertificateReloadSeconds));
  settings.watch_identity_key_cert_pairs();
  if (!options.tls_ca.empty()) settings.watch_root_certs();
  settings.set_cert_request_type(options.tls_require_client ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                                 : options.tls_ca.empty()   ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                                                            : GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY);
  return tls::TlsServerCredentials(settings);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ServerSecurity>> ServerSecurity::Open(const ServerSecurityOptions& options,
                                                                     const std::string& listen) {
  TP_RETURN_IF_ERROR(CheckOptions(options));
  const bool authenticates = !options.access_file.empty() || options.tls_require_client;
  TP_RETURN_IF_ERROR(CheckListenAddress(listen, options.insecure || (!options.tls_cert.empty() && authenticates)));
  absl::StatusOr<std::unique_ptr<AccessControl>> access = AccessControl::Open(options.access_file);
  if (!access.ok()) return absl::InvalidArgumentError(absl::StrCat("--access-file: ", access.status().message()));
  const bool tls = !options.tls_cert.empty() && !absl::StartsWith(listen, "unix:");
  google::protobuf::SetLogHandler(&LogOnlyFatal);
  return std::unique_ptr<ServerSecurity>(new ServerSecurity(options, tls, *std::move(access)));
}

std::shared_ptr<grpc::ServerCredentials> ServerSecurity::Credentials() const {
  if (!tls_ && access_->open_to_all()) return grpc::InsecureServerCredentials();
  auto gate = std::make_shared<Gate>(access_);
  if (!tls_) return std::make_shared<PlainCredentials>(std::move(gate));
  std::shared_ptr<grpc::ServerCredentials> credentials = TlsCredentials(options_);
  if (!access_->open_to_all()) credentials->SetAuthMetadataProcessor(std::move(gate));
  return credentials;
}

absl::StatusOr<Caller> ServerSecurity::CallerOf(const grpc::ServerContextBase& call) const {
  if (access_->open_to_all()) return Caller::Anyone();
  std::optional<std::string_view> authorization;
  const auto header = call.client_metadata().find("authorization");
  if (header != call.client_metadata().end()) authorization = View(header->second);
  const std::shared_ptr<const grpc::AuthContext> peer = call.auth_context();
  return access_->Identify(authorization, peer != nullptr ? CertificateNames(*peer) : std::vector<std::string>());
}

}  // namespace tidepool
