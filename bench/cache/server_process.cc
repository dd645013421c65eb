#include "bench/cache/server_process.h"

#include "absl/strings/str_replace.h"

namespace tidepool::bench {

ServerProcess::ServerProcess(std::vector<std::string> argv, bool unix_socket) {
  const std::string listen = unix_socket ? "unix:" + dir_.File("socket") : "127.0.0.1:0";
  for (std::string& argument : argv) {
    argument = absl::StrReplaceAll(argument, {{"{listen}", listen}, {"{dir}", dir_.path()}});
  }
  argv[0] = test::BinaryPath(argv[0]);
  process_ = std::make_unique<test::ChildProcess>(argv);
  constexpr std::string_view kListening = "listening on ";
  const std::string line = process_->WaitForLine(kListening);
  address_ = line.substr(line.find(kListening) + kListening.size());
}

}  // namespace tidepool::bench
