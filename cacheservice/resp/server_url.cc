#include "cacheservice/resp/server_url.h"

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/listen_address.h"
#include "base/status_macros.h"

namespace tidepool {
namespace {

constexpr int kDefaultPort = 6379;
constexpr size_t kMostEndpoints = 64;
constexpr size_t kMostPathBytes = 107;  // sun_path with its zero byte

absl::StatusOr<std::string> PercentDecoded(std::string_view text) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      decoded.push_back(text[i]);
      continue;
    }
    if (i + 2 >= text.size() || !absl::ascii_isxdigit(text[i + 1]) || !absl::ascii_isxdigit(text[i + 2])) {
      return absl::InvalidArgumentError("a % in user or password is not followed by two hexadecimal digits");
    }
    decoded += absl::HexStringToBytes(std::string(text.substr(i + 1, 2)));
    i += 2;
  }
  return decoded;
}

bool ConsumePrefix(std::string_view* text, std::string_view prefix) {
  if (!text->starts_with(prefix)) return false;
  text->remove_prefix(prefix.size());
  return true;
}

absl::StatusOr<int> ParsePort(std::string_view text) {
  int port = 0;
  const bool digits = !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
  if (!digits || !absl::SimpleAtoi(std::string(text), &port) || port < 1 || port > 65'535) {
    return absl::InvalidArgumentError(absl::StrCat("port '", std::string(text), "' is not in 1 to 65535"));
  }
  return port;
}

absl::StatusOr<RespEndpoint> ParseUrlEndpoint(std::string_view text) {
  RespEndpoint endpoint = {.host = std::string(text), .port = kDefaultPort};
  std::string_view port;
  if (text.starts_with('[')) {
    const size_t close = text.find(']');
    if (close == std::string_view::npos) {
      return absl::InvalidArgumentError(absl::StrCat("host '", std::string(text), "' has no ]"));
    }
    endpoint.host = std::string(text.substr(1, close - 1));
    port = text.substr(close + 1);
    if (!port.empty() && port[0] != ':') {
      return absl::InvalidArgumentError(absl::StrCat("'", std::string(text), "' is not [HOST]:PORT"));
    }
  } else if (const size_t colon = text.find(':'); colon != std::string_view::npos) {
    endpoint.host = std::string(text.substr(0, colon));
    port = text.substr(colon);
  }
  if (endpoint.host.empty()) return absl::InvalidArgumentError("a host is empty");
  if (!port.empty()) {
    TP_ASSIGN_OR_RETURN(endpoint.port, ParsePort(port.substr(1)));
  }
  return endpoint;
}

absl::Status TakeCredentials(std::string_view* rest, RespServers* servers) {
  const size_t at = rest->rfind('@');
  if (at == std::string_view::npos) return absl::OkStatus();
  const std::string_view login = rest->substr(0, at);
  const size_t colon = login.find(':');
  TP_ASSIGN_OR_RETURN(servers->user, PercentDecoded(login.substr(0, colon)));
  if (colon != std::string_view::npos) {
    TP_ASSIGN_OR_RETURN(servers->password, PercentDecoded(login.substr(colon + 1)));
  }
  rest->remove_prefix(at + 1);
  return absl::OkStatus();
}

}  // namespace

std::string RespEndpoint::ToString() const {
  if (port == 0) return absl::StrCat("unix:", host);
  return host.find(':') == std::string::npos ? absl::StrCat(host, ":", port) : absl::StrCat("[", host, "]:", port);
}

bool RespEndpoint::IsLocal() const { return port == 0 || IsLoopbackHost(host); }

absl::StatusOr<RespEndpoint> ParseRespEndpoint(std::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return absl::InvalidArgumentError("an endpoint has no port");
  RespEndpoint endpoint = {.host = std::string(text.substr(0, colon))};
  TP_ASSIGN_OR_RETURN(endpoint.port, ParsePort(text.substr(colon + 1)));
  return endpoint;
}

absl::StatusOr<RespServers> ParseRespServers(std::string_view url) {
  RespServers servers;
  std::string_view rest = url;
  if (ConsumePrefix(&rest, "redis+unix://")) {
    TP_RETURN_IF_ERROR(TakeCredentials(&rest, &servers));
    if (!rest.starts_with('/') || rest.size() > kMostPathBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("redis+unix:// needs an absolute path of at most ", kMostPathBytes, " bytes"));
    }
    servers.endpoints.push_back({.host = std::string(rest), .port = 0});
    return servers;
  }
  if (ConsumePrefix(&rest, "rediss://")) {
    servers.tls = true;
  } else if (!ConsumePrefix(&rest, "redis://")) {
    return absl::InvalidArgumentError("it does not begin with redis://, rediss:// or redis+unix://");
  }
  TP_RETURN_IF_ERROR(TakeCredentials(&rest, &servers));
  if (rest.ends_with("/0")) rest.remove_suffix(2);
  if (rest.ends_with("/")) rest.remove_suffix(1);
  if (rest.find('/') != std::string_view::npos) {
    return absl::InvalidArgumentError("a path is not understood: clusters have one database, 0");
  }
  const std::vector<std::string> parts = absl::StrSplit(std::string(rest), ',');
  for (const std::string& part : parts) {
    TP_ASSIGN_OR_RETURN(RespEndpoint endpoint, ParseUrlEndpoint(part));
    servers.endpoints.push_back(std::move(endpoint));
  }
  if (servers.endpoints.size() > kMostEndpoints) {
    return absl::InvalidArgumentError(
        absl::StrCat("it names ", servers.endpoints.size(), " servers, at most ", kMostEndpoints, " are taken"));
  }
  return servers;
}

}  // namespace tidepool
