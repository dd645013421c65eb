#include "tests/reliability/simulation.h"

#include <functional>
#include <memory>
#include <optional>
#include <queue>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/reliability/simulated_storage.h"

namespace tidepool::test {
namespace {

constexpr int kClients = 4;
constexpr int kOperations = 120;     // of all clients together; repeated messages come on top
constexpr int kMostSends = 4;        // of one message, then its client gives up
constexpr int kExpiries = 8;         // where blocks have a time to live
constexpr int64_t kTimeoutMs = 900;  // of a client, simulated as all times are

struct NetworkFaults {
  int lost_percent = 0, repeated_percent = 0, slow_percent = 0;
};

// As for the disk (simulated_storage.cc): seeds go through the kinds of trouble.
NetworkFaults NetworkOf(uint64_t seed) {
  if (seed % 6 == 0) return {};
  if (seed % 6 == 1 || seed % 6 == 5) return {.lost_percent = 30, .repeated_percent = 50, .slow_percent = 20};
  return {.lost_percent = 5, .repeated_percent = 10, .slow_percent = 5};
}

class Simulation {
 public:
  Simulation(uint64_t seed, size_t shown)
      : seed_(seed),
        random_(seed),
        network_(NetworkOf(seed)),
        history_(seed, &now_ms_, shown),
        storage_(seed, &now_ms_, &history_),
        hours_pass_(storage_.ttl_ms() > 0) {}
  SimulationReport Run();

 private:
  struct Event {
    int64_t at_ms;
    uint64_t order;
    std::function<void()> job;
    bool operator<(const Event& other) const {  // the earliest is the greatest
      return std::pair(at_ms, order) > std::pair(other.at_ms, other.order);
    }
  };

  void At(int64_t in_ms, std::function<void()> job) { events_.push({now_ms_ + in_ms, next_order_++, std::move(job)}); }
  int64_t Random(int64_t below) { return static_cast<int64_t>(random_() % static_cast<uint64_t>(below)); }
  // Where blocks have a time to live hours pass, else some seconds. Of a client between operations:
  int64_t Pause() { return hours_pass_ ? Random(150'000) : Random(100); }
  // More where hours pass, so that blocks are used again that would have left by then; not where calls of the disk
  // fail, too: so many of them take all blocks that are not durable.
  int Operations() const { return hours_pass_ && !storage_.disk_fails() ? 4 * kOperations : kOperations; }
  // When something happens that is not a client's.
  int64_t Sometime(int64_t from_ms, int64_t below_ms) { return (from_ms + Random(below_ms)) * (hours_pass_ ? 600 : 1); }
  bool Chance(int percent) { return Random(100) < percent; }

  void NextOperation(int client);
  void Send(const std::shared_ptr<Message>& message, int sends);
  void Deliver(const std::shared_ptr<Message>& message);
  void Answered(const Message& message, const std::optional<SessionManifest>& manifest);
  void Start();
  void Restart(SimulatedStorage::End end);
  void Expire();

  const uint64_t seed_;
  std::mt19937_64 random_;
  const NetworkFaults network_;
  int64_t now_ms_ = 1'000'000;
  uint64_t next_order_ = 0, next_id_ = 1;
  std::priority_queue<Event> events_;
  int started_ = 0;            // operations of clients
  std::set<uint64_t> closed_;  // messages answered or given up
  History history_;
  SimulatedStorage storage_;
  const bool hours_pass_;
  SimulationCounts counts_;
};

SimulationReport Simulation::Run() {
  Start();
  for (int client = 0; client < kClients; ++client) At(Random(50), [this, client] { NextOperation(client); });
  for (int i = 0; i < 3; ++i) {
    At(Sometime(200, 15'000), [this] { Restart(static_cast<SimulatedStorage::End>(Random(3))); });
  }
  if (seed_ % 6 == 3 || seed_ % 6 == 5) {
    const int64_t from = Sometime(500, 8000);
    At(from, [this] { storage_.set_full(true); });
    At(from + Sometime(500, 4000), [this] { storage_.set_full(false); });
  }
  for (int i = 0; hours_pass_ && i < kExpiries; ++i) At(Sometime(200, 15'000), [this] { Expire(); });
  while (!events_.empty() && !history_.failed()) {
    Event event = events_.top();
    events_.pop();
    now_ms_ = event.at_ms;
    event.job();
  }
  // Whatever has happened, what was acknowledged is there when the disk works again, and after one more loss of power.
  storage_.Heal();
  for (int round = 0; round < 2 && !history_.failed(); ++round) {
    if (!storage_.running()) history_.Expect(storage_.Start(), "it does not start on a disk that works");
    if (!history_.failed()) storage_.CheckAll();
    if (round == 0) storage_.Restart(SimulatedStorage::End::kPowerLoss);
  }
  if (hours_pass_ && !history_.failed()) {
    now_ms_ += 2 * storage_.ttl_ms();
    storage_.CheckAllExpire();
  }
  counts_.digest = history_.digest();
  storage_.Count(&counts_);
  return {.failure = history_.failure(), .counts = counts_};
}

void Simulation::Start() {
  if (storage_.running() || storage_.Start()) return;
  At(100, [this] { Start(); });
}

void Simulation::Restart(SimulatedStorage::End end) {
  if (!storage_.running()) return;
  using End = SimulatedStorage::End;
  ++(end == End::kPowerLoss ? counts_.power_losses : end == End::kKill ? counts_.kills : counts_.orderly_restarts);
  storage_.Restart(end);
  At(50 + Random(1500), [this] { Start(); });
}

void Simulation::Expire() {
  if (!storage_.running()) return;
  storage_.Expire();
  if (!storage_.powered()) Restart(SimulatedStorage::End::kPowerLoss);
}

void Simulation::NextOperation(int client) {
  if (started_ >= Operations()) return;
  ++started_;
  auto message = std::make_shared<Message>();
  message->id = next_id_++;
  message->client = client;
  message->number = static_cast<int>(Random(SimulatedStorage::kBlocks));
  message->session = absl::StrCat("s", Random(SimulatedStorage::kSessions));
  using Kind = Message::Kind;
  switch (Random(12)) {
    case 0:
    case 1:
    case 2:
    case 3:
      message->kind = Kind::kPut;
      message->durable = Chance(30);
      break;
    case 4:
    case 5: message->kind = Kind::kGet; break;
    case 6:
    case 7:
      message->kind = Kind::kGather;
      message->kv_head = static_cast<int>(Random(2));
      message->row_mask = random_() | 1;
      break;
    case 8:
      message->kind = Kind::kLookup;
      for (int i = 0; i < 8; ++i) message->chain.push_back(static_cast<int>(Random(SimulatedStorage::kBlocks)));
      break;
    case 9:
      message->kind = Chance(20) ? Kind::kDelete : Kind::kLease;
      message->release = Chance(50);
      break;
    default: message->kind = Kind::kGetManifest; break;  // its answer is followed by a put
  }
  Send(message, 0);
}

void Simulation::Send(const std::shared_ptr<Message>& message, int sends) {
  if (closed_.contains(message->id)) return;
  if (sends == kMostSends) {
    closed_.insert(message->id);
    At(Pause(), [this, client = message->client] { NextOperation(client); });
    return;
  }
  const int copies = Chance(network_.lost_percent) ? 0 : Chance(network_.repeated_percent) ? 2 : 1;
  if (copies == 0) ++counts_.lost_messages;
  for (int copy = 0; copy < copies; ++copy) {
    const int64_t delay = Chance(network_.slow_percent) ? Random(5000) : 1 + Random(40);
    At(delay, [this, message] { Deliver(message); });
  }
  At(kTimeoutMs, [this, message, sends] { Send(message, sends + 1); });
}

void Simulation::Deliver(const std::shared_ptr<Message>& message) {
  if (!storage_.running()) {  // nobody listens
    ++counts_.lost_messages;
    return;
  }
  ++counts_.operations;
  if (message->executed > 0) ++counts_.repeated;
  storage_.Execute(message.get());
  if (history_.failed()) return;
  // It failed in the middle of the call: no answer.
  if (!storage_.powered()) return Restart(SimulatedStorage::End::kPowerLoss);
  if (Chance(network_.lost_percent)) {
    ++counts_.lost_messages;
    return;
  }
  At(1 + Random(40), [this, message, manifest = storage_.sure(message->session)] { Answered(*message, manifest); });
}

void Simulation::Answered(const Message& message, const std::optional<SessionManifest>& manifest) {
  if (!closed_.insert(message.id).second) return;
  if (message.kind != Message::Kind::kGetManifest) {
    At(Pause(), [this, client = message.client] { NextOperation(client); });
    return;
  }
  // The next turn of what was read. By the time it arrives others may have written.
  auto put = std::make_shared<Message>();
  put->id = next_id_++;
  put->client = message.client;
  put->session = message.session;
  put->kind = Chance(15) ? Message::Kind::kCopyManifest : Message::Kind::kPutManifest;
  put->manifest.tenant = "default";
  put->manifest.session_id = message.session;
  put->manifest.model_fingerprint = "test-model";
  put->manifest.revision = (manifest.has_value() ? manifest->revision : 0) + 1;
  put->manifest.token_ids = {static_cast<int32_t>(put->id), message.client};
  put->manifest.engine_state =
      std::string(static_cast<size_t>(100 + Random(20'000)), static_cast<char>('a' + Random(26)));
  if (put->kind == Message::Kind::kCopyManifest) {
    put->manifest.revision += Random(3);
    put->manifest.updated_unix_ms = now_ms_ - 5;
  }
  Send(put, 0);
}

}  // namespace

SimulationCounts& SimulationCounts::operator+=(const SimulationCounts& other) {
  digest ^= other.digest;
  operations += other.operations;
  repeated += other.repeated;
  lost_messages += other.lost_messages;
  power_losses += other.power_losses;
  kills += other.kills;
  orderly_restarts += other.orderly_restarts;
  failed_writes += other.failed_writes;
  failed_reads += other.failed_reads;
  blocks += other.blocks;
  manifests += other.manifests;
  expired += other.expired;
  return *this;
}

std::string SimulationCounts::ToString() const {
  return absl::StrCat(operations, " operations (", repeated, " repeated), ", lost_messages, " messages lost, ",
                      power_losses, " power losses, ", kills, " kills, ", orderly_restarts, " orderly restarts, ",
                      failed_writes, " failed writes and ", failed_reads, " failed reads of the disk; ", blocks,
                      " blocks and ", manifests, " manifests compared, ", expired, " values expired; digest ",
                      absl::Hex(digest, absl::kZeroPad16));
}

SimulationReport Simulate(uint64_t seed, size_t shown) { return Simulation(seed, shown).Run(); }

}  // namespace tidepool::test
