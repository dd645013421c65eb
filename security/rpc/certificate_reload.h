// How often certificate files are looked at. Connections that are there go on with what they were made with.
#ifndef TIDEPOOL_SECURITY_RPC_CERTIFICATE_RELOAD_H_
#define TIDEPOOL_SECURITY_RPC_CERTIFICATE_RELOAD_H_

namespace tidepool {

inline constexpr unsigned kCertificateReloadSeconds = 1;  // three small files; a mount of Kubernetes changes at once

}  // namespace tidepool

#endif  // TIDEPOOL_SECURITY_RPC_CERTIFICATE_RELOAD_H_
