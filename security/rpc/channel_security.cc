#include "security/rpc/channel_security.h"

#include <grpcpp/grpcpp.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "security/file_stamp.h"
#include "security/pem_files.h"
#include "security/rpc/callback_threads.h"
#include "security/rpc/certificate_reload.h"

namespace tidepool {
namespace {

constexpr size_t kMaxTokenBytes = 4096;

absl::Status CheckToken(const char* flag, const std::string& token) {
  const bool visible = std::all_of(token.begin(), token.end(), absl::ascii_isgraph);
  if (!token.empty() && token.size() <= kMaxTokenBytes && visible) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(flag, ": is not a token of 1 to ", kMaxTokenBytes, " visible ASCII characters"));
}

absl::StatusOr<std::string> ReadToken(const std::string& file) {
  absl::StatusOr<std::string> text = ReadSmallFile(file, kMaxTokenBytes);
  if (!text.ok()) return absl::InvalidArgumentError(absl::StrCat("--token-file: ", text.status().message()));
  std::string token(absl::StripAsciiWhitespace(*text));
  TP_RETURN_IF_ERROR(CheckToken("--token-file", token));
  return token;
}

// Adds the token to every call. A token from a file is read again when the file has changed.
class TokenPlugin : public grpc::MetadataCredentialsPlugin {
 public:
  TokenPlugin(std::string token, std::string file)
      : file_(std::move(file)), token_(std::move(token)), stamp_(FileStamp::Of(file_)) {}

  bool IsBlocking() const override { return false; }
  const char* GetType() const override { return "tidepool token"; }
  grpc::Status GetMetadata(grpc::string_ref, grpc::string_ref, const grpc::AuthContext&,
                           std::multimap<grpc::string, grpc::string>* metadata) override {
    MutexLock lock(&mutex_);
    if (!file_.empty()) {
      const FileStamp now = FileStamp::Of(file_);
      if (!(now == stamp_)) {
        absl::StatusOr<std::string> read = ReadToken(file_);
        // A file on its way to being replaced: the token that was there may do for one more call.
        if (read.ok()) {
          token_ = *std::move(read);
          stamp_ = now;
        }
      }
    }
    metadata->insert({"authorization", absl::StrCat("Bearer ", token_)});
    return grpc::Status::OK;
  }

 private:
  const std::string file_;  // empty: the token stays
  Mutex mutex_;
  std::string token_ ABSL_GUARDED_BY(mutex_);
  FileStamp stamp_ ABSL_GUARDED_BY(mutex_);
};

std::shared_ptr<grpc::ChannelCredentials> TlsCredentials(const ChannelSecurityOptions& options) {
  namespace tls = grpc::experimental;
  tls::TlsChannelCredentialsOptions settings;
  settings.set_certificate_provider(std::make_shared<tls::FileWatcherCertificateProvider>(
      options.tls_key, options.tls_cert, options.tls_ca, kCertificateReloadSeconds));
  settings.watch_root_certs();
  if (!options.tls_cert.empty()) settings.watch_identity_key_cert_pairs();
  return tls::TlsCredentials(settings);
}

}  // namespace

class ChannelSecurity::Impl {
 public:
  explicit Impl(ChannelSecurityOptions given) : options(std::move(given)) {
    if (!options.tls_ca.empty()) tls = TlsCredentials(options);
    if (options.token.empty()) return;
    // gRPC wants to know that the channel is secure enough for the token. Where it is not encrypted it never leaves the
    // machine: "local" credentials refuse other peers.
    auto call = grpc::experimental::MetadataCredentialsFromPlugin(
        std::make_unique<TokenPlugin>(options.token, options.token_file), GRPC_SECURITY_NONE);
    if (tls != nullptr) tls = grpc::CompositeChannelCredentials(tls, call);
    loopback = grpc::CompositeChannelCredentials(grpc::experimental::LocalCredentials(LOCAL_TCP), call);
    socket = grpc::CompositeChannelCredentials(grpc::experimental::LocalCredentials(UDS), call);
  }

  const ChannelSecurityOptions options;
  std::shared_ptr<grpc::ChannelCredentials> tls;               // null: plain text
  std::shared_ptr<grpc::ChannelCredentials> loopback, socket;  // with the token, in plain text; null: no token
};

ChannelSecurity::ChannelSecurity(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ChannelSecurity::~ChannelSecurity() = default;

absl::Status ChannelSecurity::Check(const ChannelSecurityOptions& options) {
  if (options.tls_cert.empty() != options.tls_key.empty()) {
    return absl::InvalidArgumentError("--tls-cert, --tls-key: only one of them is given, both are needed");
  }
  if (options.tls_ca.empty() && !options.tls_cert.empty()) {
    return absl::InvalidArgumentError("--tls-cert: is given without --tls-ca, which says that the service speaks TLS");
  }
  if (options.tls_ca.empty() && !options.tls_server_name.empty()) {
    return absl::InvalidArgumentError("--tls-server-name: is given without --tls-ca");
  }
  if (!options.tls_ca.empty()) TP_RETURN_IF_ERROR(CheckAuthorityFile(options.tls_ca));
  if (!options.tls_cert.empty()) {
    TP_RETURN_IF_ERROR(CheckIdentityFiles(options.tls_cert, options.tls_key, absl::Now()));
  }
  if (!options.token_file.empty()) {
    if (!options.token.empty()) {
      return absl::InvalidArgumentError("--token-file: a token is given otherwise, too (TIDEPOOL_TOKEN)");
    }
    return ReadToken(options.token_file).status();
  }
  return options.token.empty() ? absl::OkStatus() : CheckToken("TIDEPOOL_TOKEN", options.token);
}

absl::StatusOr<std::shared_ptr<const ChannelSecurity>> ChannelSecurity::Create(ChannelSecurityOptions options) {
  TP_RETURN_IF_ERROR(Check(options));
  if (!options.token_file.empty()) {
    TP_ASSIGN_OR_RETURN(options.token, ReadToken(options.token_file));
  }
  return std::shared_ptr<const ChannelSecurity>(new ChannelSecurity(std::make_unique<Impl>(std::move(options))));
}

std::shared_ptr<grpc::Channel> OpenChannel(const ChannelSecurity* security, const std::string& address,
                                           grpc::ChannelArguments* arguments) {
  KeepCallbackThreads();
  const bool is_unix = absl::StartsWith(address, "unix:");
  std::shared_ptr<grpc::ChannelCredentials> credentials;
  if (security != nullptr) {
    const ChannelSecurity::Impl& impl = *security->impl_;
    credentials = is_unix ? impl.socket : impl.tls != nullptr ? impl.tls : impl.loopback;
    if (!is_unix && impl.tls != nullptr && !impl.options.tls_server_name.empty()) {
      arguments->SetSslTargetNameOverride(impl.options.tls_server_name);
    }
  }
  if (credentials == nullptr) credentials = grpc::InsecureChannelCredentials();
  return grpc::CreateCustomChannel(address, credentials, *arguments);
}

std::string Explained(const ChannelSecurity* security, const std::string& message) {
  const auto means = [&message](const std::string& what) { return absl::StrCat(message, " (", what, ")"); };
  const bool tls = security != nullptr && security->impl_->tls != nullptr;
  const bool closed = absl::StrContains(message, "failed to connect") &&
                      (absl::StrContains(message, "Socket closed") || absl::StrContains(message, "reset by peer"));
  if (!tls && closed) return means("does it speak TLS? --tls-ca says whose certificates to trust");
  if (!tls) {
    if (!absl::StrContains(message, "neither UDS or TCP loopback")) return message;
    return means("in plain text a token is sent to this machine only: --tls-ca");
  }
  const ChannelSecurityOptions& options = security->impl_->options;
  if (closed) {
    return means(options.tls_cert.empty() ? "does it require a client certificate? --tls-cert, --tls-key"
                                          : absl::StrCat("does it refuse the client certificate ", options.tls_cert,
                                                         "? it may have expired, or be signed by somebody else"));
  }
  if (absl::StrContains(message, "certificate verify failed")) {
    return means(
        absl::StrCat("the service's certificate is not signed by --tls-ca ", options.tls_ca, ", or has expired"));
  }
  if (absl::StrContains(message, "Hostname Verification Check failed")) {
    return means(
        options.tls_server_name.empty()
            ? "the service's certificate is not for the host of the address; --tls-server-name says for whom"
            : absl::StrCat("the service's certificate is not for --tls-server-name ", options.tls_server_name));
  }
  if (absl::StrContains(message, "wrong version number")) return means("it speaks plain text: without --tls-ca");
  return message;
}

}  // namespace tidepool
