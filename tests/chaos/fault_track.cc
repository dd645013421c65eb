#include "tests/chaos/fault_track.h"

#include <algorithm>
#include <cstdio>
#include <numeric>
#include <utility>

namespace tidepool::test {

FaultTrack::FaultTrack(Options options, std::vector<Fault> faults, std::function<bool()> well)
    : options_(std::move(options)),
      faults_(std::move(faults)),
      well_(std::move(well)),
      random_(options_.seed),
      next_(Clock::now() + options_.rest) {
  for (const Fault& fault : faults_) counts_[fault.name] = 0;
}

void FaultTrack::Begin() {
  if (order_.empty()) {
    order_.resize(faults_.size());
    std::iota(order_.begin(), order_.end(), size_t{0});
    std::shuffle(order_.begin(), order_.end(), random_);
  }
  fault_ = order_.back();
  order_.pop_back();
  target_ = static_cast<int>(random_() % static_cast<uint64_t>(options_.targets));
  const auto spread = static_cast<uint64_t>((options_.longest - options_.shortest).count());
  const auto holds = options_.shortest + std::chrono::milliseconds(random_() % (spread + 1));
  std::fprintf(stderr, "chaos: %s %d: %s for %lld ms\n", options_.name.c_str(), target_, faults_[fault_].name.c_str(),
               static_cast<long long>(holds.count()));
  faults_[fault_].begin(target_);
  ++counts_[faults_[fault_].name];
  state_ = State::kHolding;
  next_ = Clock::now() + holds;
}

bool FaultTrack::Step(bool more) {
  if (faults_.empty()) return true;
  const Clock::time_point now = Clock::now();
  switch (state_) {
    case State::kResting:
      if (!more) return true;
      if (now >= next_) Begin();
      return false;
    case State::kHolding:
      if (faults_[fault_].over ? !faults_[fault_].over() : now < next_ && more) {
        if (faults_[fault_].during) faults_[fault_].during(target_);
        return false;
      }
      faults_[fault_].end(target_);
      state_ = State::kHealing;
      next_ = Clock::now();
      return false;
    case State::kHealing:
      if (!well_()) return false;
      state_ = State::kResting;
      next_ = Clock::now() + options_.rest;
      return !more;
  }
  return false;
}

std::chrono::milliseconds FaultTrack::waiting() const {
  if (state_ != State::kHealing) return std::chrono::milliseconds(0);
  return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - next_);
}

}  // namespace tidepool::test
