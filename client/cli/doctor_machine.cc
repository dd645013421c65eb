// What of a machine can be looked at before anything runs on it.
#include <netdb.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/byte_size.h"
#include "client/cli/finding.h"
#include "security/pem_files.h"
#include "worker/kernels/cpu/isa.h"
#include "worker/model/model.h"

namespace tidepool::cli {
namespace {

using Grade = Finding::Grade;

constexpr absl::Duration kExpirySoon = absl::Hours(14 * 24);
constexpr rlim_t kFewDescriptors = 1024;  // files of RocksDB alone may be 512
constexpr uint64_t kLittleMemory = uint64_t{1} << 30;

std::string FirstLine(const char* path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

void CheckProcessor(Findings* findings) {
  const Isa isa = SupportedIsas().back();
  const bool slow = isa == Isa::kBaseline;
  findings->push_back({slow ? Grade::kWarning : Grade::kOk, "processor", absl::StrCat("kernels: ", IsaName(isa)),
                       slow ? "no AVX2 here: a worker on the CPU is several times slower than on a newer one" : ""});
  cpu_set_t set;
  CPU_ZERO(&set);
  const int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  findings->push_back({cores < 2 ? Grade::kWarning : Grade::kOk, "cores", absl::StrCat(cores, " for this process"),
                       cores < 2 ? "give the worker at least 2, and --threads as many as it has" : ""});
}

// Bytes of MemAvailable, and of the control group if that is less.
uint64_t AvailableMemory() {
  uint64_t available = 0;
  std::ifstream in("/proc/meminfo");
  for (std::string name, unit; in >> name;) {
    uint64_t kib = 0;
    in >> kib;
    std::getline(in, unit);
    if (name == "MemAvailable:") available = kib << 10;
  }
  uint64_t limit = 0;
  if (absl::SimpleAtoi(FirstLine("/sys/fs/cgroup/memory.max"), &limit)) available = std::min(available, limit);
  return available;
}

void CheckMemory(const MachineQuestion& question, uint64_t model_bytes, Findings* findings) {
  const uint64_t available = AvailableMemory();
  // Weights are there twice while they are repacked.
  const uint64_t wanted = 2 * model_bytes + question.memory_bytes;
  Finding finding = {Grade::kOk, "memory", absl::StrCat(FormatByteSize(available), " available"), ""};
  if (wanted > available) {
    finding.grade = Grade::kWrong;
    finding.advice =
        absl::StrCat("model and --memory-bytes want some ", FormatByteSize(wanted), ": smaller ones, or more memory");
  } else if (available < kLittleMemory) {
    finding.grade = Grade::kWarning;
    finding.advice = "little for a worker: the weights, and --device-kv-bytes, must fit";
  }
  findings->push_back(std::move(finding));

  const std::string huge = FirstLine("/sys/kernel/mm/transparent_hugepage/enabled");
  const bool never = huge.empty() || absl::StrContains(huge, "[never]");
  findings->push_back(
      {never ? Grade::kWarning : Grade::kOk, "huge pages", huge.empty() ? "not offered" : huge,
       never ? "decoding is slower without: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled" : ""});
}

void CheckDescriptors(Findings* findings) {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  const bool few = limit.rlim_cur < kFewDescriptors;
  findings->push_back({few ? Grade::kWrong : Grade::kOk, "file descriptors",
                       absl::StrCat(limit.rlim_cur, ", at most ", limit.rlim_max),
                       few ? "ulimit -n 4096 (LimitNOFILE= of a systemd unit)" : ""});
}

void CheckDisk(const MachineQuestion& question, Findings* findings) {
  Finding finding = {Grade::kOk, absl::StrCat("disk of ", question.data_dir), "", ""};
  // The directory, or where it will be made.
  std::error_code error;
  std::filesystem::path path = std::filesystem::absolute(question.data_dir, error);
  while (!std::filesystem::exists(path, error) && path.has_parent_path() && path != path.parent_path()) {
    path = path.parent_path();
  }
  struct statvfs volume {};
  if (statvfs(path.c_str(), &volume) != 0) {
    finding.grade = Grade::kWrong;
    finding.found = std::strerror(errno);
    finding.advice = "name a directory on a volume that can be read";
    findings->push_back(std::move(finding));
    return;
  }
  const uint64_t free = uint64_t{volume.f_bavail} * volume.f_frsize, wanted = question.disk_bytes / 4 * 5;
  finding.found = absl::StrCat(FormatByteSize(free), " free");
  if (access(path.c_str(), W_OK) != 0) {
    finding.grade = Grade::kWrong;
    absl::StrAppend(&finding.found, ", not writable");
    finding.advice = absl::StrCat("chown or chmod ", path.string());
  } else if (free < wanted) {
    finding.grade = Grade::kWarning;
    finding.advice = absl::StrCat("--disk-bytes and a quarter for RocksDB are ", FormatByteSize(wanted),
                                  ": less, or a larger volume (what the directory holds already counts)");
  }
  findings->push_back(std::move(finding));
}

void CheckListen(const std::string& address, Findings* findings) {
  Finding finding = {Grade::kOk, absl::StrCat("port ", address), "free", ""};
  const size_t colon = address.rfind(':');
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  const int error = colon == std::string::npos
                        ? EAI_NONAME
                        : getaddrinfo(address.substr(0, colon).c_str(), address.c_str() + colon + 1, &hints, &found);
  if (error != 0) {
    finding = {Grade::kWrong, finding.what, gai_strerror(error), "give HOST:PORT with an address of this machine"};
  } else {
    const int fd = socket(found->ai_family, SOCK_STREAM, 0);
    const int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, found->ai_addr, found->ai_addrlen) != 0) {
      finding = {Grade::kWrong, finding.what, std::strerror(errno),
                 "something listens there, or the address is not this machine's: another port, or end what listens"};
    }
    close(fd);
    freeaddrinfo(found);
  }
  findings->push_back(std::move(finding));
}

void CheckCertificates(const MachineQuestion& question, Findings* findings) {
  if (!question.tls_cert.empty()) {
    Finding finding = {Grade::kOk, "certificate", absl::StrCat(question.tls_cert, ": valid for two weeks or more"), ""};
    if (absl::Status now = CheckIdentityFiles(question.tls_cert, question.tls_key, absl::Now()); !now.ok()) {
      finding = {Grade::kWrong, finding.what, std::string(now.message()), "replace certificate and key together"};
    } else if (!CheckIdentityFiles(question.tls_cert, question.tls_key, absl::Now() + kExpirySoon).ok()) {
      finding = {Grade::kWarning, finding.what, absl::StrCat(question.tls_cert, ": ends within two weeks"),
                 "renew it: running servers take the new files by themselves"};
    }
    findings->push_back(std::move(finding));
  }
  if (!question.tls_ca.empty()) {
    const absl::Status authority = CheckAuthorityFile(question.tls_ca);
    findings->push_back({authority.ok() ? Grade::kOk : Grade::kWrong, "certificate authority",
                         authority.ok() ? question.tls_ca : std::string(authority.message()),
                         authority.ok() ? "" : "give a PEM file with the certificate of who signs"});
  }
}

}  // namespace

void CheckMachine(const MachineQuestion& question, Findings* findings) {
  CheckProcessor(findings);
  uint64_t model_bytes = 0;
  if (!question.model.empty()) {
    const absl::StatusOr<std::shared_ptr<const Model>> model = Model::Load(question.model);
    if (model.ok()) {
      model_bytes = (*model)->tensor_bytes();
      findings->push_back({Grade::kOk, "model",
                           absl::StrCat((*model)->config().name, ", ", FormatByteSize(model_bytes), ", fingerprint ",
                                        (*model)->fingerprint().substr(0, 16)),
                           ""});
    } else {
      findings->push_back({Grade::kWrong, "model", std::string(model.status().message()),
                           "a whole GGUF file of a supported model (docs/models.md)"});
    }
  }
  CheckMemory(question, model_bytes, findings);
  CheckDescriptors(findings);
  if (!question.data_dir.empty()) CheckDisk(question, findings);
  for (const std::string& address : question.listen) CheckListen(address, findings);
  CheckCertificates(question, findings);
}

}  // namespace tidepool::cli
