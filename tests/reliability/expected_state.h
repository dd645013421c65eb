// What a service under test has been told and has answered, in a file that outlives both: one line when an operation
// begins and one when it ends. One that began and has no end is pending: it may have taken effect or not.
//
//   block NUMBER durable|volatile        begins      block NUMBER stored|failed      ends
//   session NAME REVISION SEED           begins      session NAME REVISION ok|failed ends
//
// The bytes follow from NUMBER and SEED. Thread-safe.
#ifndef TIDEPOOL_TESTS_RELIABILITY_EXPECTED_STATE_H_
#define TIDEPOOL_TESTS_RELIABILITY_EXPECTED_STATE_H_

#include <cstdint>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "base/mutex.h"

namespace tidepool::test {

class ExpectedState {
 public:
  explicit ExpectedState(const std::string& file) : file_(file, std::ios::app) {
    if (!file_) throw std::runtime_error("cannot write " + file);
  }
  void BlockBegins(int number, bool durable) { Add("block", number, durable ? "durable" : "volatile"); }
  void BlockEnds(int number, bool stored) { Add("block", number, stored ? "stored" : "failed"); }
  void ManifestBegins(const std::string& session, int64_t revision, uint32_t seed) {
    Add("session", session, revision, seed);
  }
  void ManifestEnds(const std::string& session, int64_t revision, bool ok) {
    Add("session", session, revision, ok ? "ok" : "failed");
  }

  struct Block {
    bool durable = false;  // asked for
    bool stored = false;   // acknowledged
  };
  struct Turn {
    int64_t revision = 0;
    uint32_t seed = 0;
  };
  struct Session {
    Turn acknowledged;          // revision 0: none
    std::vector<Turn> pending;  // begun after it, and not acknowledged
  };
  struct Snapshot {
    std::map<int, Block> blocks;
    std::map<std::string, Session> sessions;
  };
  // What a file says. Throws where a line cannot be read.
  static Snapshot Read(const std::string& file) {
    Snapshot snapshot;
    std::ifstream in(file);
    for (std::string line; std::getline(in, line);) {
      std::istringstream words(line);
      std::string kind, name, word;
      int number = 0;
      Turn turn;
      words >> kind;
      if (kind == "block" && words >> number >> word) {
        if (word == "durable" || word == "volatile") snapshot.blocks[number] = {.durable = word == "durable"};
        if (word == "stored") snapshot.blocks[number].stored = true;
      } else if (kind == "session" && words >> name >> turn.revision >> word) {
        Session& session = snapshot.sessions[name];
        if (word == "ok") {
          session.acknowledged = session.pending.back();
          session.pending.clear();
        } else if (word != "failed") {
          turn.seed = static_cast<uint32_t>(std::stoul(word));
          session.pending.push_back(turn);
        }
      } else {
        throw std::runtime_error(file + ": " + line);
      }
    }
    return snapshot;
  }

 private:
  template <typename... Words>
  void Add(const Words&... words) {
    MutexLock lock(&mutex_);
    ((file_ << words << ' '), ...);
    file_ << std::endl;  // in the file before the call goes on
  }

  Mutex mutex_;
  std::ofstream file_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_RELIABILITY_EXPECTED_STATE_H_
