#include "security/pem_files.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <ctime>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "security/file_stamp.h"

namespace tidepool {
namespace {

constexpr size_t kMaxPemBytes = size_t{1} << 20;

using Bio = std::unique_ptr<BIO, decltype(&BIO_free)>;
using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;
using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;

// A key with a passphrase is refused: nobody is there to be asked.
int NoPassphrase(char*, int, int, void*) { return -1; }

absl::StatusOr<Bio> OpenFile(const char* flag, const std::string& file, std::string* text) {
  absl::StatusOr<std::string> read = ReadSmallFile(file, kMaxPemBytes);
  if (!read.ok()) return absl::InvalidArgumentError(absl::StrCat(flag, ": ", read.status().message()));
  *text = *std::move(read);
  return Bio(BIO_new_mem_buf(text->data(), static_cast<int>(text->size())), &BIO_free);
}

absl::StatusOr<Certificate> ReadCertificate(const char* flag, const std::string& file) {
  std::string text;
  TP_ASSIGN_OR_RETURN(const Bio bio, OpenFile(flag, file, &text));
  Certificate certificate(PEM_read_bio_X509(bio.get(), nullptr, &NoPassphrase, nullptr), &X509_free);
  ERR_clear_error();
  if (certificate == nullptr)
    return absl::InvalidArgumentError(absl::StrCat(flag, ": ", file, ": holds no PEM certificate"));
  return certificate;
}

std::string Printed(const ASN1_TIME* time) {
  tm fields{};
  if (ASN1_TIME_to_tm(time, &fields) != 1) return "an unreadable time";
  return absl::FormatTime("%Y-%m-%d %H:%M:%SZ", absl::FromTM(fields, absl::UTCTimeZone()), absl::UTCTimeZone());
}

}  // namespace

absl::Status CheckIdentityFiles(const std::string& cert_file, const std::string& key_file, absl::Time now) {
  TP_ASSIGN_OR_RETURN(const Certificate certificate, ReadCertificate("--tls-cert", cert_file));
  time_t seconds = absl::ToTimeT(now);
  if (X509_cmp_time(X509_get0_notBefore(certificate.get()), &seconds) > 0) {
    return absl::InvalidArgumentError(absl::StrCat("--tls-cert: ", cert_file, ": is not valid before ",
                                                   Printed(X509_get0_notBefore(certificate.get()))));
  }
  if (X509_cmp_time(X509_get0_notAfter(certificate.get()), &seconds) < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--tls-cert: ", cert_file, ": expired at ", Printed(X509_get0_notAfter(certificate.get()))));
  }
  std::string text;
  TP_ASSIGN_OR_RETURN(const Bio bio, OpenFile("--tls-key", key_file, &text));
  const Key key(PEM_read_bio_PrivateKey(bio.get(), nullptr, &NoPassphrase, nullptr), &EVP_PKEY_free);
  const bool matches = key != nullptr && X509_check_private_key(certificate.get(), key.get()) == 1;
  ERR_clear_error();
  if (key == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("--tls-key: ", key_file, ": holds no PEM private key without a passphrase"));
  }
  if (matches) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--tls-key: ", key_file, ": is not the key of the certificate in ", cert_file));
}

absl::Status CheckAuthorityFile(const std::string& ca_file) { return ReadCertificate("--tls-ca", ca_file).status(); }

}  // namespace tidepool
