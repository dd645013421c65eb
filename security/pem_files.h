// The certificate and key files that flags name, looked at once before a process uses them: the TLS library itself says
// nothing of a file that it cannot use, until a handshake fails.
#ifndef TIDEPOOL_SECURITY_PEM_FILES_H_
#define TIDEPOOL_SECURITY_PEM_FILES_H_

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace tidepool {

// InvalidArgument naming --tls-cert or --tls-key and the file: it cannot be read, is no PEM certificate or key, the
// certificate is not valid at `now`, or the key is another one's.
absl::Status CheckIdentityFiles(const std::string& cert_file, const std::string& key_file, absl::Time now);
// InvalidArgument naming --tls-ca: the file cannot be read or holds no PEM certificate.
absl::Status CheckAuthorityFile(const std::string& ca_file);

}  // namespace tidepool

#endif  // TIDEPOOL_SECURITY_PEM_FILES_H_
