#include "policies/tier/rendezvous.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/sha256.h"

namespace tidepool {
namespace {

uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

uint64_t Load(const uint8_t* bytes) {
  uint64_t value = 0;
  for (int i = 7; i >= 0; --i) value = value << 8 | bytes[i];
  return value;
}

// The best pods for a key so far. Equal scores, which chance does not give, go to the smaller seed.
class Best {
 public:
  Best(const BlockKey& key, absl::Span<const PodShare> pods) : key_(key), pods_(pods) {}

  void Offer(size_t pod) {
    const uint64_t score = PodScore(key_, pods_[pod].seed);
    size_t at = static_cast<size_t>(count_);
    while (at > 0 && Above(score, pod, at - 1)) --at;
    if (at >= ranked_.size()) return;
    count_ = std::min(count_ + 1, kMostPodChoices);
    for (size_t i = static_cast<size_t>(count_) - 1; i > at; --i) ranked_[i] = ranked_[i - 1];
    ranked_[at] = {score, pod};
  }
  void AppendTo(PodChoices* choices, int most) const {
    for (int i = 0; i < std::min(count_, most); ++i) choices->Add(ranked_[i].pod);
  }

 private:
  struct Ranked {
    uint64_t score;
    size_t pod;
  };
  bool Above(uint64_t score, size_t pod, size_t place) const {
    const Ranked& other = ranked_[place];
    return score > other.score || (score == other.score && pods_[pod].seed < pods_[other.pod].seed);
  }

  const BlockKey& key_;
  const absl::Span<const PodShare> pods_;
  std::array<Ranked, kMostPodChoices> ranked_{};
  int count_ = 0;
};

}  // namespace

uint64_t PodSeed(std::string_view name) {
  Sha256 hash;
  hash.Add(name.data(), name.size());
  return Load(hash.Finish().data());
}

uint64_t PodScore(const BlockKey& key, uint64_t seed) {
  return Mix(Mix(seed ^ Load(key.bytes.data())) ^ Load(key.bytes.data() + 8));
}

double PodGate(const BlockKey& key, uint64_t seed) {
  const uint64_t mixed = Mix(PodScore(key, seed) + 0x9e3779b97f4a7c15);
  return static_cast<double>(mixed >> 11) * 0x1p-53;
}

BlockKey SessionPlace(std::string_view tenant, std::string_view session_id) {
  const Sha256::Digest digest = Sha256().AddField("session").AddField(tenant).AddField(session_id).Finish();
  BlockKey key;
  std::memcpy(key.bytes.data(), digest.data(), key.bytes.size());
  return key;
}

void PodChoices::Add(size_t pod) {
  if (count == kMostPodChoices || Contains(pod)) return;
  pods[count++] = static_cast<uint16_t>(pod);
}

bool PodChoices::Contains(size_t pod) const {
  return std::find(pods.begin(), pods.begin() + count, pod) != pods.begin() + count;
}

PodChoices PodsToWrite(const BlockKey& key, absl::Span<const PodShare> pods) {
  Best open(key, pods), closed(key, pods);
  for (size_t pod = 0; pod < pods.size(); ++pod) {
    if (!pods[pod].takes_new) continue;
    // The gate of a full weight is always open: most keys need one hash.
    const bool takes = pods[pod].weight >= 1 || PodGate(key, pods[pod].seed) < pods[pod].weight;
    (takes ? open : closed).Offer(pod);
  }
  PodChoices choices;
  open.AppendTo(&choices, kMostPodChoices);
  closed.AppendTo(&choices, kMostPodChoices);
  return choices;
}

PodChoices PodsToRead(const BlockKey& key, absl::Span<const PodShare> pods, int copies) {
  TIDEPOOL_CHECK(copies >= 1 && copies <= 2);
  const PodChoices written = PodsToWrite(key, pods);
  PodChoices choices;
  for (int i = 0; i < std::min(copies, written.count); ++i) choices.Add(written.pods[i]);
  Best all(key, pods);
  for (size_t pod = 0; pod < pods.size(); ++pod) all.Offer(pod);
  all.AppendTo(&choices, copies + 1);
  return choices;
}

}  // namespace tidepool
