#include "cacheservice/resp/cluster_client.h"

#include <poll.h>

#include <algorithm>
#include <utility>

#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace tidepool {
namespace {

constexpr absl::Duration kMinRefreshInterval = absl::Milliseconds(50);
constexpr absl::Duration kFirstPause = absl::Milliseconds(5);  // before a command is tried again; doubles
constexpr absl::Duration kLongestPause = absl::Milliseconds(100);

void Pause(absl::Duration pause, absl::Time deadline) {
  pause = std::min(pause, deadline - absl::Now());
  if (pause > absl::ZeroDuration()) poll(nullptr, 0, static_cast<int>(absl::ToInt64Milliseconds(pause) + 1));
}

// What a cluster says while it changes: the same command may be answered a little later, or elsewhere.
bool IsPassing(const RespReply& reply) {
  for (const char* code : {"TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "READONLY", "MOVED", "ASK"}) {
    if (reply.IsError(code)) return true;
  }
  return false;
}

bool IsLoginError(const RespReply& reply) { return reply.IsError("NOAUTH") || reply.IsError("WRONGPASS"); }

}  // namespace

struct ClusterClient::Node {
  explicit Node(const CircuitBreakerOptions& options, uint32_t seed) : breaker(options, seed) {}
  std::unique_ptr<RespConnection> connection;
  bool proven = false;  // something was answered on this connection
  CircuitBreaker breaker;
  absl::Status failure;  // the last one
};

// One Run under way.
struct ClusterClient::Call {
  absl::Span<const Request> requests;
  absl::Time deadline;
  std::vector<absl::StatusOr<RespReply>> results;
  std::vector<int> attempts;
  absl::flat_hash_map<size_t, RespEndpoint> asks;  // where a slot is moving to, by request
  Places pending;
  bool pause = false;  // before the next round
};

ClusterClient::ClusterClient(const ClusterClientOptions& options) : options_(options) {
  TIDEPOOL_CHECK(!options_.seeds.empty() && options_.most_attempts > 0);
}

ClusterClient::~ClusterClient() = default;

ClusterClient::Node& ClusterClient::NodeOf(const RespEndpoint& endpoint) {
  std::unique_ptr<Node>& node = nodes_[endpoint];
  if (node == nullptr) {
    node = std::make_unique<Node>(CircuitBreakerOptions{.failures_to_open = 1,
                                                        .first_pause = options_.first_node_pause,
                                                        .longest_pause = options_.longest_node_pause},
                                  static_cast<uint32_t>(absl::HashOf(endpoint)));
  }
  return *node;
}

void ClusterClient::Judge(const RespEndpoint& endpoint, const absl::Status& status) {
  Node& node = NodeOf(endpoint);
  if (status.ok()) {
    node.proven = true;
    node.breaker.Succeeded();
    return;
  }
  // Servers end connections that were idle, and when they start anew: that says nothing about the next connection.
  if (!node.proven || !absl::IsUnavailable(status)) node.breaker.Failed(absl::Now());
  node.connection = nullptr;
  node.proven = false;
  node.failure = status;
  stale_ = true;
}

absl::StatusOr<RespConnection*> ClusterClient::ConnectionTo(const RespEndpoint& endpoint, absl::Time deadline) {
  Node& node = NodeOf(endpoint);
  if (node.connection != nullptr) return node.connection.get();
  if (!node.breaker.Allow(absl::Now())) return node.failure;
  ++stats_.connects;
  absl::StatusOr<std::unique_ptr<RespConnection>> connection =
      RespConnection::Connect(endpoint, options_.login, std::min(deadline, absl::Now() + options_.connect_timeout));
  if (!connection.ok()) {
    Judge(endpoint, connection.status());
    return connection.status();
  }
  node.connection = *std::move(connection);
  return node.connection.get();
}

absl::StatusOr<SlotMap> ClusterClient::AskForTopology(const RespEndpoint& endpoint, absl::Time deadline) {
  TP_ASSIGN_OR_RETURN(RespConnection* const connection, ConnectionTo(endpoint, deadline));
  const std::string_view command[] = {"CLUSTER", "SLOTS"};
  const absl::StatusOr<RespReply> reply =
      connection->Call(command, std::min(deadline, absl::Now() + options_.connect_timeout));
  Judge(endpoint, reply.status());
  if (!reply.ok()) return reply.status();
  if (IsLoginError(*reply) || reply->IsError("NOPERM")) {
    return absl::PermissionDeniedError(absl::StrCat(endpoint.ToString(), ": CLUSTER SLOTS is refused: ", reply->text));
  }
  if (IsPassing(*reply)) return absl::UnavailableError(absl::StrCat(endpoint.ToString(), ": ", reply->text));
  if (reply->is(RespReply::Type::kError)) return SlotMap::Single(endpoint);  // it is no cluster
  return SlotMap::Parse(*reply, endpoint);
}

absl::Status ClusterClient::EnsureTopology(absl::Time deadline) {
  if (map_.has_value() && (!stale_ || absl::Now() < refreshed_ + kMinRefreshInterval)) return absl::OkStatus();
  // Those that we talk to first, then those that we know of, then the seeds.
  std::vector<RespEndpoint> candidates;
  if (map_.has_value() && map_->is_cluster()) {
    for (const bool connected : {true, false}) {
      for (const RespEndpoint& endpoint : map_->endpoints()) {
        if ((NodeOf(endpoint).connection != nullptr) == connected) candidates.push_back(endpoint);
      }
    }
  }
  for (size_t i = 0; i < options_.seeds.size(); ++i) {
    candidates.push_back(options_.seeds[(next_seed_ + i) % options_.seeds.size()]);
  }
  absl::Status failure;
  for (const RespEndpoint& endpoint : candidates) {
    if (absl::Now() >= deadline) break;
    absl::StatusOr<SlotMap> map = AskForTopology(endpoint, deadline);
    if (!map.ok()) {
      // A refused login says more than a server that is away.
      if (failure.ok() || !absl::IsPermissionDenied(failure)) failure = map.status();
      continue;
    }
    map_ = *std::move(map);
    stale_ = false;
    refreshed_ = absl::Now();
    ++stats_.refreshes;
    ForgetStrangers();
    return absl::OkStatus();
  }
  ++next_seed_;
  if (map_.has_value() && map_->is_cluster()) {  // what we know may still hold
    refreshed_ = absl::Now();
    return absl::OkStatus();
  }
  return failure.ok() ? absl::DeadlineExceededError("no server was asked in time") : failure;
}

void ClusterClient::ForgetStrangers() {
  absl::erase_if(nodes_, [this](const auto& node) {
    const auto is_node = [&node](const std::vector<RespEndpoint>& known) {
      return std::find(known.begin(), known.end(), node.first) != known.end();
    };
    return !is_node(map_->endpoints()) && !is_node(options_.seeds);
  });
}

void ClusterClient::Retry(Call* call, size_t place, const absl::Status& why) {
  call->results[place] = why;
  if (++call->attempts[place] < options_.most_attempts) call->pending.push_back(place);
}

absl::flat_hash_map<RespEndpoint, ClusterClient::Places> ClusterClient::Route(Call* call) {
  absl::flat_hash_map<RespEndpoint, Places> routes;
  Places pending = std::exchange(call->pending, {});
  for (const size_t place : pending) {
    const auto asked = call->asks.find(place);
    const RespEndpoint* owner = asked != call->asks.end() ? &asked->second : map_->Owner(call->requests[place].slot);
    if (owner != nullptr) {
      routes[*owner].push_back(place);
      continue;
    }
    stale_ = call->pause = true;
    Retry(call, place, absl::UnavailableError(absl::StrCat("nobody has slot ", call->requests[place].slot)));
  }
  return routes;
}

void ClusterClient::Take(Call* call, const RespEndpoint& from, size_t place, RespReply reply) {
  if (const std::optional<Redirection> redirection = RedirectionOf(reply, from); redirection.has_value()) {
    ++stats_.redirections;
    if (redirection->ask) {
      call->asks[place] = redirection->endpoint;
    } else {
      map_->SetOwner(redirection->slot, redirection->endpoint);
      stale_ = true;
    }
    return Retry(call, place, absl::UnavailableError(absl::StrCat(from.ToString(), ": ", reply.text)));
  }
  if (IsPassing(reply)) {
    stale_ = call->pause = true;
    if (reply.IsError("READONLY")) ++next_seed_;  // a replica was named to us
    return Retry(call, place, absl::UnavailableError(absl::StrCat(from.ToString(), ": ", reply.text)));
  }
  if (IsLoginError(reply)) {
    call->results[place] = absl::PermissionDeniedError(absl::StrCat(from.ToString(), ": ", reply.text));
  } else {
    call->results[place] = std::move(reply);
  }
}

void ClusterClient::Send(Call* call, const absl::flat_hash_map<RespEndpoint, Places>& routes) {
  static constexpr std::string_view kAsking[] = {"ASKING"};
  struct Sent {
    RespEndpoint endpoint;
    const Places* places;
    std::vector<bool> asking;
    RespConnection* connection;
  };
  std::vector<Sent> sent;
  std::vector<RespConnection*> connections;
  for (const auto& [endpoint, places] : routes) {
    const absl::StatusOr<RespConnection*> connection = ConnectionTo(endpoint, call->deadline);
    if (!connection.ok()) {
      // Elsewhere, if the topology has changed; otherwise the node is left alone, and so are its slots for now.
      for (const size_t place : places) {
        call->asks.erase(place);
        Retry(call, place, connection.status());
      }
      continue;
    }
    std::vector<RespCommand> commands;
    Sent one = {.endpoint = endpoint, .places = &places, .asking = {}, .connection = *connection};
    for (const size_t place : places) {
      one.asking.push_back(call->asks.erase(place) > 0);
      if (one.asking.back()) commands.emplace_back(kAsking);
      commands.emplace_back(call->requests[place].arguments);
    }
    (*connection)->Start(std::move(commands));
    connections.push_back(*connection);
    sent.push_back(std::move(one));
  }
  RespConnection::Exchange(connections, call->deadline);
  for (const Sent& one : sent) {
    std::vector<RespReply>& replies = one.connection->replies();
    const absl::Status status = one.connection->status();
    size_t next = 0;
    for (size_t i = 0; i < one.places->size(); ++i) {
      next += one.asking[i] ? 1 : 0;
      const size_t place = (*one.places)[i];
      if (next < replies.size()) {
        Take(call, one.endpoint, place, std::move(replies[next]));
      } else {
        Retry(call, place, status);
      }
      ++next;
    }
    Judge(one.endpoint, status);
  }
}

bool ClusterClient::PartlyWorks() const {
  if (!map_.has_value() || !map_->is_cluster()) return false;
  return std::any_of(nodes_.begin(), nodes_.end(), [](const auto& node) { return node.second->proven; });
}

std::vector<absl::StatusOr<RespReply>> ClusterClient::Run(absl::Span<const Request> requests, absl::Time deadline) {
  Call call = {.requests = requests,
               .deadline = deadline,
               .results = std::vector<absl::StatusOr<RespReply>>(
                   requests.size(), absl::DeadlineExceededError("the time was up before it was sent")),
               .attempts = std::vector<int>(requests.size())};
  for (size_t i = 0; i < requests.size(); ++i) call.pending.push_back(i);
  absl::Duration pause = kFirstPause;
  while (!call.pending.empty() && absl::Now() < deadline) {
    if (const absl::Status known = EnsureTopology(deadline); !known.ok()) {
      for (const size_t place : call.pending) call.results[place] = known;
      break;
    }
    call.pause = false;
    Send(&call, Route(&call));
    if (call.pause && !call.pending.empty()) {
      Pause(pause, deadline);
      pause = std::min(2 * pause, kLongestPause);
    }
  }
  return std::move(call.results);
}

}  // namespace tidepool
