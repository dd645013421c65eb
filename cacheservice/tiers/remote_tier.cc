#include "cacheservice/tiers/remote_tier.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/checksum.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "cacheservice/tiers/remote_record.h"

namespace tidepool {
namespace {

constexpr size_t kLookupBatch = 256;                    // blocks asked about at a time
constexpr uint64_t kPiecesAtOnce = uint64_t{16} << 20;  // bytes of pieces in one batch
constexpr int kWritePatience = 5;                       // nobody waits for a write
constexpr absl::Duration kMinCall = absl::Milliseconds(1);

// OK when anything was answered; else the failure that says most.
absl::Status OutcomeOf(absl::Span<const absl::StatusOr<RespReply>> results) {
  absl::Status failure;
  for (const absl::StatusOr<RespReply>& result : results) {
    if (result.ok() && !result->is(RespReply::Type::kError)) return absl::OkStatus();
    if (failure.ok() || absl::IsPermissionDenied(result.status())) {
      failure = result.ok() ? absl::UnavailableError(result->text) : result.status();
    }
  }
  return failure;
}

CircuitBreakerOptions AtOnce(CircuitBreakerOptions options) {
  options.failures_to_open = 1;
  return options;
}

}  // namespace

// One value on its way here.
struct RemoteTier::Reading {
  enum class State : uint8_t { kWanted, kFound, kAbsent, kIncomplete, kCorrupt, kUnavailable, kFailed };
  BlockId id;
  State state = State::kWanted;
  std::string record;  // the head as stored
  RemoteHead head;     // into record
  std::string value;

  void Damaged(const absl::Status& why) {
    state = State::kCorrupt;
    TP_LOG(Warning, "cache", "remote tier: block ", id.key.ToHex(), " layer ", id.layer, " is lost: ", why.message());
  }
};

RemoteTier::RemoteTier(const RemoteTierOptions& options, const ClusterClientOptions& client)
    : options_(options),
      ttl_ms_(options.ttl > absl::ZeroDuration() ? absl::StrCat(absl::ToInt64Milliseconds(options.ttl)) : ""),
      client_options_(client),
      breaker_(options.breaker, std::random_device{}()),
      write_breaker_(AtOnce(options.breaker), std::random_device{}()),
      writer_(std::make_unique<ClusterClient>(client)) {}

RemoteTier::~RemoteTier() = default;

absl::StatusOr<std::unique_ptr<RemoteTier>> RemoteTier::Open(const RemoteTierOptions& options) {
  TP_RETURN_IF_ERROR(options.Validate());
  TP_ASSIGN_OR_RETURN(const RespServers servers, ParseRespServers(options.url));
  ClusterClientOptions client;
  client.seeds = servers.endpoints;
  client.login.user = servers.user;
  client.login.password = options.password.empty() ? servers.password : options.password;
  client.connect_timeout = std::min(client.connect_timeout, options.timeout);
  // A probe of the breaker finds its servers no longer left alone.
  client.longest_node_pause = options.breaker.first_pause / 2;
  client.first_node_pause = std::min(client.first_node_pause, client.longest_node_pause);
  if (servers.tls) {
    absl::StatusOr<std::shared_ptr<const RespTlsContext>> tls =
        RespTlsContext::Make({.ca_file = options.ca_file,
                              .cert_file = options.cert_file,
                              .key_file = options.key_file,
                              .server_name = options.server_name});
    if (!tls.ok()) return absl::Status(tls.status().code(), absl::StrCat("remote_tier: ", tls.status().message()));
    client.login.tls = *std::move(tls);
  }
  return std::unique_ptr<RemoteTier>(new RemoteTier(options, client));
}

std::unique_ptr<ClusterClient> RemoteTier::TakeClient(absl::Time deadline) {
  const auto until = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(deadline - absl::Now());
  MutexLock lock(&mutex_);
  while (breaker_.WouldAllow(absl::Now())) {
    if (free_.empty() && readers_ < options_.readers) {
      free_.push_back(std::make_unique<ClusterClient>(client_options_));
      ++readers_;
    }
    if (!free_.empty()) {
      std::unique_ptr<ClusterClient> client = std::move(free_.back());
      free_.pop_back();
      breaker_.Allow(absl::Now());
      return client;
    }
    if (!returned_.WaitUntil(&mutex_, until) && free_.empty()) return nullptr;
  }
  return nullptr;
}

void RemoteTier::ReturnClient(std::unique_ptr<ClusterClient> client) {
  MutexLock lock(&mutex_);
  free_.push_back(std::move(client));
  returned_.SignalAll();
}

void RemoteTier::TellBreaker(const absl::Status& outcome) {
  const absl::Time now = absl::Now();
  const CircuitBreaker::State before = breaker_.state();
  if (outcome.ok()) {
    breaker_.Succeeded();
    if (before != CircuitBreaker::State::kClosed) TP_LOG(Info, "cache", "remote tier: works again");
    return;
  }
  stats_.last_failure = std::string(outcome.message());
  breaker_.Failed(now, /*lasting=*/absl::IsPermissionDenied(outcome));
  if (before != CircuitBreaker::State::kOpen && breaker_.state() == CircuitBreaker::State::kOpen) {
    TP_LOG(Warning, "cache", "remote tier: left alone for ",
           absl::FormatDuration(absl::Trunc(breaker_.retry_at() - now, absl::Milliseconds(1))), ": ",
           outcome.message());
  }
}

std::optional<std::vector<RemoteTier::Reply>> RemoteTier::Ask(Requests requests, absl::Time deadline) {
  std::unique_ptr<ClusterClient> client = TakeClient(deadline);
  if (client == nullptr) return std::nullopt;
  std::vector<Reply> results = client->Run(requests, deadline);
  {
    MutexLock lock(&mutex_);
    TellBreaker(client->PartlyWorks() ? absl::OkStatus() : OutcomeOf(results));
  }
  ReturnClient(std::move(client));
  return results;
}

void RemoteTier::ReadHeads(std::vector<Reading>* readings, absl::Time deadline) {
  std::vector<std::string> keys;
  std::vector<ClusterClient::Request> requests;
  keys.reserve(readings->size());
  for (const Reading& reading : *readings) {
    keys.push_back(RemoteHeadKey(reading.id));
    requests.push_back({.slot = RemoteSlot(reading.id.key), .arguments = {"GET", keys.back()}});
  }
  std::optional<std::vector<Reply>> replies = Ask(requests, deadline);
  for (size_t i = 0; i < readings->size(); ++i) {
    Reading& reading = (*readings)[i];
    if (!replies.has_value()) {
      reading.state = Reading::State::kUnavailable;
    } else if (Reply& reply = (*replies)[i]; !reply.ok() || reply->is(RespReply::Type::kError)) {
      reading.state = Reading::State::kFailed;
    } else if (reply->is(RespReply::Type::kNil)) {
      reading.state = Reading::State::kAbsent;
    } else {
      reading.record = std::move(reply->text);
      absl::StatusOr<RemoteHead> head = ParseRemoteHead(reading.id, reading.record);
      if (head.ok()) {
        reading.head = *head;
        reading.state = Reading::State::kFound;
      } else {
        reading.Damaged(head.status());
      }
    }
  }
}

void RemoteTier::ReadPieces(std::vector<Reading>* readings, absl::Time deadline) {
  size_t first = 0;
  while (first < readings->size()) {
    std::vector<std::string> keys;
    std::vector<Reading*> owners;  // of each key
    std::vector<size_t> sizes;
    uint64_t bytes = 0;
    for (; first < readings->size() && bytes < kPiecesAtOnce; ++first) {
      Reading& reading = (*readings)[first];
      if (reading.state != Reading::State::kFound) continue;
      reading.value.reserve(reading.head.value_bytes);
      reading.value.append(reading.head.first_piece);
      for (uint32_t piece = 1; piece < reading.head.pieces(); ++piece) {
        keys.push_back(RemotePieceKey(reading.id, reading.head.tag, piece));
        owners.push_back(&reading);
        sizes.push_back(reading.head.SizeOfPiece(piece));
        bytes += sizes.back();
      }
    }
    if (keys.empty()) continue;
    std::vector<ClusterClient::Request> requests;
    for (size_t i = 0; i < keys.size(); ++i) {
      requests.push_back({.slot = RemoteSlot(owners[i]->id.key), .arguments = {"GET", keys[i]}});
    }
    std::optional<std::vector<Reply>> replies = Ask(requests, deadline);
    for (size_t i = 0; i < keys.size(); ++i) {
      Reading& reading = *owners[i];
      if (reading.state != Reading::State::kFound) continue;
      if (!replies.has_value()) {
        reading.state = Reading::State::kUnavailable;
      } else if (const Reply& reply = (*replies)[i]; !reply.ok() || reply->is(RespReply::Type::kError)) {
        reading.state = Reading::State::kFailed;
      } else if (reply->is(RespReply::Type::kNil)) {
        reading.state = Reading::State::kIncomplete;
      } else if (reply->text.size() != sizes[i]) {
        reading.Damaged(
            absl::DataLossError(absl::StrCat("a piece has ", reply->text.size(), " bytes, not ", sizes[i])));
      } else {
        reading.value += reply->text;
      }
    }
  }
}

RemoteTier::Found RemoteTier::Get(absl::Span<const BlockId> ids, absl::Time deadline) {
  Found found = {.values = std::vector<BlockValue>(ids.size())};
  std::vector<Reading> readings;
  for (const BlockId& id : ids) readings.push_back({.id = id});
  if (readings.empty()) return found;
  deadline = std::min(deadline, absl::Now() + options_.timeout);
  if (deadline - absl::Now() < kMinCall) {
    for (Reading& reading : readings) reading.state = Reading::State::kFailed;
  } else {
    ReadHeads(&readings, deadline);
    ReadPieces(&readings, deadline);
  }
  for (size_t i = 0; i < readings.size(); ++i) {
    Reading& reading = readings[i];
    if (reading.state != Reading::State::kFound) continue;
    if (const absl::Status valid = VerifyBlockValue(reading.id, reading.value); valid.ok()) {
      found.values[i] = std::make_shared<const std::string>(std::move(reading.value));
    } else {
      reading.Damaged(valid);
    }
  }
  ForgetCorrupt(readings, deadline);
  MutexLock lock(&mutex_);
  for (size_t i = 0; i < readings.size(); ++i) {
    switch (readings[i].state) {
      case Reading::State::kFound:
        ++stats_.hits;
        stats_.hit_bytes += found.values[i]->size();
        break;
      case Reading::State::kAbsent: ++stats_.absent; break;
      case Reading::State::kIncomplete: ++stats_.incomplete; break;
      case Reading::State::kCorrupt: ++stats_.corrupt; break;
      case Reading::State::kUnavailable:
        ++stats_.unavailable;
        found.complete = false;
        break;
      case Reading::State::kWanted:
      case Reading::State::kFailed:
        ++stats_.failed;
        found.complete = false;
        break;
    }
  }
  return found;
}

// What is damaged would be taken for stored when the value comes again.
void RemoteTier::ForgetCorrupt(absl::Span<const Reading> readings, absl::Time deadline) {
  std::vector<std::string> keys;
  std::vector<ClusterClient::Request> requests;
  keys.reserve(readings.size());
  for (const Reading& reading : readings) {
    if (reading.state != Reading::State::kCorrupt) continue;
    keys.push_back(RemoteHeadKey(reading.id));
    requests.push_back({.slot = RemoteSlot(reading.id.key), .arguments = {"DEL", keys.back()}});
  }
  if (!requests.empty()) Ask(requests, deadline);
}

int RemoteTier::CountLeading(absl::Span<const Wanted> blocks, absl::Time deadline) {
  deadline = std::min(deadline, absl::Now() + options_.timeout);
  int known = 0;
  for (size_t first = 0; first < blocks.size(); first += kLookupBatch) {
    const auto batch = blocks.subspan(first, kLookupBatch);
    std::vector<std::vector<std::string>> keys;
    std::vector<ClusterClient::Request> requests;
    for (const Wanted& block : batch) {
      keys.emplace_back();
      for (const int32_t layer : block.layers) keys.back().push_back(RemoteHeadKey({block.key, layer}));
      requests.push_back({.slot = RemoteSlot(block.key), .arguments = {"EXISTS"}});
      requests.back().arguments.insert(requests.back().arguments.end(), keys.back().begin(), keys.back().end());
    }
    if (deadline - absl::Now() < kMinCall) return known;
    const std::optional<std::vector<Reply>> replies = Ask(requests, deadline);
    if (!replies.has_value()) return known;
    for (size_t i = 0; i < batch.size(); ++i) {
      const Reply& reply = (*replies)[i];
      if (!reply.ok() || !reply->is(RespReply::Type::kInteger) ||
          reply->integer != static_cast<int64_t>(batch[i].layers.size())) {
        return known;
      }
      ++known;
    }
  }
  return known;
}

std::vector<bool> RemoteTier::AlreadyThere(absl::Span<const DiskPut> puts, absl::Span<const uint32_t> tags,
                                           absl::Time deadline) {
  std::vector<std::vector<std::string>> keys(puts.size());
  std::vector<ClusterClient::Request> requests;
  for (size_t i = 0; i < puts.size(); ++i) {
    keys[i].push_back(RemoteHeadKey(puts[i].id));
    const size_t pieces = (puts[i].value->size() + options_.piece_bytes - 1) / options_.piece_bytes;
    for (uint32_t piece = 1; piece < pieces; ++piece) keys[i].push_back(RemotePieceKey(puts[i].id, tags[i], piece));
    // Counts those that are there and makes them young: by their last use or, one by one, by the time they have left.
    const uint16_t slot = RemoteSlot(puts[i].id.key);
    if (ttl_ms_.empty()) {
      requests.push_back({.slot = slot, .arguments = {"TOUCH"}});
      requests.back().arguments.insert(requests.back().arguments.end(), keys[i].begin(), keys[i].end());
    } else {
      for (const std::string& key : keys[i]) {
        requests.push_back({.slot = slot, .arguments = {"PEXPIRE", key, ttl_ms_}});
      }
    }
  }
  const std::vector<Reply> replies = writer_->Run(requests, deadline);
  std::vector<bool> there;
  size_t next = 0;
  for (const std::vector<std::string>& of_one : keys) {
    int64_t count = 0;
    for (size_t i = 0; i < (ttl_ms_.empty() ? 1 : of_one.size()); ++i, ++next) {
      if (replies[next].ok()) count += replies[next]->integer;  // 0 of an error: a server without TOUCH
    }
    there.push_back(count == static_cast<int64_t>(of_one.size()));
  }
  return there;
}

void RemoteTier::Write(absl::Span<const DiskPut> puts, absl::Time deadline, std::vector<absl::Status>* statuses) {
  std::vector<uint32_t> tags;
  for (const DiskPut& put : puts) tags.push_back(Checksum32(*put.value));
  const std::vector<bool> there = AlreadyThere(puts, tags, deadline);
  std::vector<std::string> keys, heads;
  std::vector<ClusterClient::Request> requests;
  std::vector<size_t> owners;
  size_t pieces = 0;
  for (const DiskPut& put : puts) pieces += put.value->size() / options_.piece_bytes + 1;
  keys.reserve(pieces);
  heads.reserve(puts.size());
  const auto set = [&](size_t index, std::string key, std::string_view value) {
    keys.push_back(std::move(key));
    requests.push_back({.slot = RemoteSlot(puts[index].id.key), .arguments = {"SET", keys.back(), value}});
    if (!ttl_ms_.empty()) requests.back().arguments.insert(requests.back().arguments.end(), {"PX", ttl_ms_});
    owners.push_back(index);
  };
  const auto run = [&] {
    const std::vector<Reply> replies = writer_->Run(requests, deadline);
    for (size_t i = 0; i < replies.size(); ++i) {
      absl::Status& status = (*statuses)[owners[i]];
      if (!replies[i].ok()) {
        status = replies[i].status();
      } else if (replies[i]->is(RespReply::Type::kError)) {
        status = absl::FailedPreconditionError(replies[i]->text);
      }
    }
    requests.clear();
    owners.clear();
  };
  for (size_t i = 0; i < puts.size(); ++i) {
    const std::string_view value = *puts[i].value;
    for (size_t at = options_.piece_bytes; !there[i] && at < value.size(); at += options_.piece_bytes) {
      const uint32_t piece = static_cast<uint32_t>(at / options_.piece_bytes);
      set(i, RemotePieceKey(puts[i].id, tags[i], piece), value.substr(at, options_.piece_bytes));
    }
  }
  if (!requests.empty()) run();
  for (size_t i = 0; i < puts.size(); ++i) {
    if (there[i] || !(*statuses)[i].ok()) continue;
    heads.push_back(EncodeRemoteHead(puts[i].id, *puts[i].value, options_.piece_bytes, tags[i]));
    set(i, RemoteHeadKey(puts[i].id), heads.back());
  }
  if (!requests.empty()) run();
  MutexLock lock(&mutex_);
  for (size_t i = 0; i < puts.size(); ++i) {
    if (!(*statuses)[i].ok()) continue;
    ++(there[i] ? stats_.repeated_puts : stats_.puts);
    if (!there[i]) stats_.put_bytes += puts[i].value->size();
  }
}

std::vector<absl::Status> RemoteTier::Put(absl::Span<const DiskPut> puts) {
  std::vector<absl::Status> statuses(puts.size());
  if (puts.empty()) return statuses;
  {
    MutexLock lock(&mutex_);
    const absl::Time now = absl::Now();
    if (!write_breaker_.WouldAllow(now) || !breaker_.Allow(now)) {
      std::fill(statuses.begin(), statuses.end(), absl::UnavailableError("remote tier: left alone for now"));
      return statuses;
    }
    write_breaker_.Allow(now);
  }
  Write(puts, absl::Now() + kWritePatience * options_.timeout, &statuses);
  // Refused is answered: the engine works, but takes no values.
  bool answered = false;
  absl::Status failure, refusal;
  for (const absl::Status& status : statuses) {
    const bool refused = absl::IsFailedPrecondition(status);
    if (refused) refusal = status;
    answered = answered || status.ok() || refused;
    if (failure.ok() || absl::IsPermissionDenied(status)) failure = status;
  }
  MutexLock lock(&mutex_);
  TellBreaker(answered || writer_->PartlyWorks() ? absl::OkStatus() : failure);
  if (!refusal.ok()) {
    const bool was_open = write_breaker_.state() != CircuitBreaker::State::kClosed;
    write_breaker_.Failed(absl::Now());
    stats_.last_failure = std::string(refusal.message());
    if (!was_open) TP_LOG(Warning, "cache", "remote tier: it takes no values for now: ", refusal.message());
  } else if (answered) {
    write_breaker_.Succeeded();
  } else if (write_breaker_.state() == CircuitBreaker::State::kHalfOpen) {
    write_breaker_.Failed(absl::Now());
  }
  return statuses;
}

absl::Time RemoteTier::WritesAllowedAt() const {
  MutexLock lock(&mutex_);
  absl::Time at = absl::InfinitePast();
  for (const CircuitBreaker* breaker : {&breaker_, &write_breaker_}) {
    // Another call's probe is under way when it is half-open: soon we know more.
    if (breaker->state() == CircuitBreaker::State::kHalfOpen) at = std::max(at, absl::Now() + absl::Milliseconds(100));
    if (breaker->state() == CircuitBreaker::State::kOpen) at = std::max(at, breaker->retry_at());
  }
  return at;
}

void RemoteTier::CountWriteFailures(uint64_t count) {
  MutexLock lock(&mutex_);
  stats_.write_failures += count;
}

RemoteTierStats RemoteTier::Stats() const {
  MutexLock lock(&mutex_);
  RemoteTierStats stats = stats_;
  stats.enabled = true;
  stats.breaker = breaker_.state();
  stats.breaker_opened = breaker_.opened();
  if (breaker_.state() == CircuitBreaker::State::kOpen) {
    stats.retry_seconds = std::max(0.0, absl::ToDoubleSeconds(breaker_.retry_at() - absl::Now()));
  }
  return stats;
}

}  // namespace tidepool
