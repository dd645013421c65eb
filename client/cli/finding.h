// What `tidepool doctor` finds: one line for each thing that was looked at.
#ifndef TIDEPOOL_CLIENT_CLI_FINDING_H_
#define TIDEPOOL_CLIENT_CLI_FINDING_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "security/rpc/channel_security.h"

namespace tidepool::cli {

struct Finding {
  enum class Grade { kOk, kWarning, kWrong };
  Grade grade = Grade::kOk;
  std::string what;  // was looked at
  std::string found;
  std::string advice;  // what to do; empty when all is well
};
using Findings = std::vector<Finding>;

// Of this machine. Empty: not looked at.
struct MachineQuestion {
  std::string model;                          // file
  std::string data_dir;                       // of a cache
  uint64_t disk_bytes = 0, memory_bytes = 0;  // that it is to have
  std::vector<std::string> listen;            // addresses that are to be free
  std::string tls_cert, tls_key, tls_ca;
};
void CheckMachine(const MachineQuestion& question, Findings* findings);

// Of what runs.
void CheckRunning(const std::vector<std::string>& workers, const std::vector<std::string>& pods,
                  const std::shared_ptr<const ChannelSecurity>& security, Findings* findings);

}  // namespace tidepool::cli

#endif  // TIDEPOOL_CLIENT_CLI_FINDING_H_
