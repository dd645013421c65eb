// Certificates for tests, by scripts/make-dev-certs and openssl. Failures throw.
#ifndef TIDEPOOL_TESTS_SUPPORT_CERTIFICATES_H_
#define TIDEPOOL_TESTS_SUPPORT_CERTIFICATES_H_

#include <filesystem>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/support/process.h"
#include "tests/support/temp_dir.h"

namespace tidepool::test {

class Certificates {
 public:
  // A CA of its own; server, worker and client with its signature.
  Certificates() { Run({TIDEPOOL_SOURCE_DIR "/scripts/make-dev-certs", dir_.path()}); }

  // Of ca.pem, server.pem, server.key and so on.
  std::string File(const std::string& name) const { return dir_.File(name); }
  std::string ca() const { return File("ca.pem"); }

  // who.pem anew, with who's key, from yesterday to the day before.
  void Expire(const std::string& who) {
    const std::string request = File(who + ".csr");
    Run({"openssl", "req", "-new", "-key", File(who + ".key"), "-subj", "/CN=" + who, "-out", request});
    Run({"openssl", "x509", "-req", "-in", request, "-CA", ca(), "-CAkey", File("ca.key"), "-set_serial", "99", "-days",
         "-1", "-out", File(who + ".pem")});
  }
  // Puts another CA's files in the place of these, whole files at a time.
  void ReplaceBy(const Certificates& other) {
    for (const char* name :
         {"ca.pem", "ca.key", "server.pem", "server.key", "worker.pem", "worker.key", "client.pem", "client.key"}) {
      std::filesystem::copy_file(other.File(name), File(name) + std::string(".new"));
      std::filesystem::rename(File(name) + std::string(".new"), File(name));
    }
  }

 private:
  static void Run(std::vector<std::string> argv) {
    const ProgramResult result = RunProgram(argv);
    if (!(result.exit == ExitStatus::Exited(0))) throw std::runtime_error(argv[0] + ": " + result.err);
  }

  TempDir dir_;
};

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_SUPPORT_CERTIFICATES_H_
