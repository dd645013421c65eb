// One after another, drawn by a seed, faults of one kind of thing: begun, held for a while, ended, and followed by the
// next once what was hit is well again. Tracks run side by side. Used by the thread that owns the processes.
#ifndef TIDEPOOL_TESTS_CHAOS_FAULT_TRACK_H_
#define TIDEPOOL_TESTS_CHAOS_FAULT_TRACK_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

namespace tidepool::test {

struct Fault {
  std::string name;
  // `target` is drawn anew for each time.
  std::function<void(int target)> begin;
  std::function<void(int target)> during;  // about 20 times a second while it holds; may be null
  std::function<void(int target)> end;
  // Instead of holding for a drawn time it holds until this is true; may be null.
  std::function<bool()> over;
};

class FaultTrack {
 public:
  using Clock = std::chrono::steady_clock;
  struct Options {
    std::string name;
    uint64_t seed = 1;
    int targets = 1;
    std::chrono::milliseconds shortest{2000}, longest{8000};  // that a fault holds
    std::chrono::milliseconds rest{1000};                     // between being well and the next fault
  };
  // well: all targets are. Every fault comes once, in an order drawn by the seed, before any comes again.
  FaultTrack(Options options, std::vector<Fault> faults, std::function<bool()> well);

  // Does what is due. `more`: new faults may begin. Returns true when nothing is wrong and nothing is begun.
  bool Step(bool more);
  // How often each fault came.
  const std::map<std::string, int>& counts() const { return counts_; }
  // When the track waits for its target to be well: how long it has.
  std::chrono::milliseconds waiting() const;
  const std::string& name() const { return options_.name; }
  // The fault that came last.
  std::string last() const { return faults_.empty() ? "" : faults_[fault_].name; }

 private:
  enum class State { kResting, kHolding, kHealing };
  void Begin();

  const Options options_;
  const std::vector<Fault> faults_;
  const std::function<bool()> well_;
  std::mt19937_64 random_;
  std::vector<size_t> order_;  // of faults that have not come in this round
  std::map<std::string, int> counts_;
  State state_ = State::kResting;
  Clock::time_point next_;  // end of this state; of kHealing: its beginning
  size_t fault_ = 0;
  int target_ = 0;
};

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_CHAOS_FAULT_TRACK_H_
