// A few pages over HTTP/1.1: GET of a path, one answer for each connection, on an address of their own. One thread
// serves all connections, at most 16: with one more the oldest is closed, so that those who never ask or never read
// keep nobody away. A request has at most 8 KiB and 5 s.
#ifndef TIDEPOOL_METRICS_PAGE_SERVER_H_
#define TIDEPOOL_METRICS_PAGE_SERVER_H_

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace tidepool {

struct Page {
  std::string content_type;
  std::function<std::string()> text;  // called by the server's thread
};

class PageServer {
 public:
  // address: host:port, port 0: any free one. pages: by path; what they use outlives the server. Unavailable when it
  // cannot listen there.
  static absl::StatusOr<std::unique_ptr<PageServer>> Start(const std::string& address,
                                                           std::map<std::string, Page> pages);
  // Connections are closed as they are.
  ~PageServer();

  const std::string& address() const;  // host:port, with the port that was taken

 private:
  class Impl;
  explicit PageServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_METRICS_PAGE_SERVER_H_
