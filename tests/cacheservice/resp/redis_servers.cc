#include "tests/cacheservice/resp/redis_servers.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <random>
#include <stdexcept>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cacheservice/resp/hash_slot.h"
#include "cacheservice/resp/slot_map.h"
#include "tests/support/eventually.h"

namespace tidepool::test {
namespace {

constexpr int kStartAttempts = 10;
constexpr char kBinary[] =
    "/usr/bin/redis-check-rdb";  // redis-server under another name: that package starts a service

// Below the range that the kernel takes ports of outgoing connections from.
int FreePort() {
  static std::mt19937 random(std::random_device{}());
  for (int attempt = 0; attempt < 1000; ++attempt) {
    const int port = std::uniform_int_distribution<int>(11'000, 32'000)(random);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const bool free = bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
    close(fd);
    if (free) return port;
  }
  throw std::runtime_error("no free port");
}

}  // namespace

RedisServer::RedisServer(Options options) : options_(std::move(options)) {
  if (!std::filesystem::exists(kBinary)) {
    throw std::runtime_error("redis-server is not installed: scripts/install-deps, or apt-get install redis-tools");
  }
  std::filesystem::create_symlink(kBinary, dir_.File("redis-server"));
  for (int attempt = 1; process_ == nullptr; ++attempt) {
    try {
      bus_port_ = FreePort();
      StartOn(FreePort());
    } catch (const std::runtime_error&) {  // somebody else took the port first
      if (attempt == kStartAttempts) throw;
    }
  }
}

void RedisServer::StartOn(int port) {
  const std::string number = std::to_string(port);
  std::vector<std::string> argv = {dir_.File("redis-server"),
                                   "--bind",
                                   "127.0.0.1",
                                   "--dir",
                                   dir_.path(),
                                   "--save",
                                   "",
                                   "--appendonly",
                                   "no",
                                   "--maxclients",
                                   "200",
                                   "--io-threads",
                                   "1"};
  if (options_.login.tls == nullptr) {
    argv.insert(argv.end(), {"--port", number});
  } else {
    argv.insert(argv.end(), {"--port", "0", "--tls-port", number});
  }
  if (options_.cluster) {
    argv.insert(argv.end(), {"--cluster-enabled", "yes", "--cluster-node-timeout", "600", "--cluster-port",
                             std::to_string(bus_port_), "--cluster-replica-validity-factor", "0",
                             "--cluster-require-full-coverage", "no", "--cluster-allow-replica-migration", "no",
                             "--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0"});
  }
  argv.insert(argv.end(), options_.arguments.begin(), options_.arguments.end());
  auto process = std::make_unique<ChildProcess>(argv);
  process->WaitForLine("Ready to accept connections");
  process_ = std::move(process);
  port_ = port;
}

void RedisServer::Start() { StartOn(port_); }

void RedisServer::Kill() {
  connection_ = nullptr;
  process_->Kill();
}

RespReply RedisServer::Call(std::vector<std::string_view> arguments) {
  const absl::Time deadline = absl::Now() + absl::Seconds(60);
  if (connection_ == nullptr || !connection_->status().ok()) {
    auto connection = RespConnection::Connect(endpoint(), options_.login, deadline);
    if (!connection.ok()) throw std::runtime_error(connection.status().ToString());
    connection_ = *std::move(connection);
  }
  auto reply = connection_->Call(arguments, deadline);
  if (!reply.ok()) throw std::runtime_error(reply.status().ToString());
  return *std::move(reply);
}

RedisCluster::RedisCluster(int masters, int replicas) : masters_(masters) {
  for (int i = 0; i < masters + replicas; ++i) {
    nodes_.push_back(std::make_unique<RedisServer>(RedisServer::Options{.cluster = true}));
  }
  for (int i = 0; i < masters; ++i) {
    const std::string first = std::to_string(kHashSlots * i / masters);
    const std::string last = std::to_string(kHashSlots * (i + 1) / masters - 1);
    node(i).Call({"CLUSTER", "ADDSLOTSRANGE", first, last});
    node(i).Call({"CLUSTER", "SET-CONFIG-EPOCH", std::to_string(i + 1)});
  }
  for (int i = 1; i < masters + replicas; ++i) {
    node(0).Call({"CLUSTER", "MEET", "127.0.0.1", std::to_string(node(i).port()), std::to_string(node(i).bus_port())});
  }
  if (!Eventually([this] { return KnowEachOther(); })) throw std::runtime_error("the nodes do not meet");
  for (int i = 0; i < replicas; ++i) {
    const RespReply reply = node(masters + i).Call({"CLUSTER", "REPLICATE", id(i)});
    if (reply.is(RespReply::Type::kError)) throw std::runtime_error(reply.text);
  }
  if (!Eventually([this] { return Ok(); })) throw std::runtime_error("the cluster is not up");
}

bool RedisCluster::KnowEachOther() {
  for (const auto& node : nodes_) {
    const std::string nodes = node->Call({"CLUSTER", "NODES"}).text;
    size_t known = 0;
    for (size_t at = nodes.find("connected"); at != std::string::npos; at = nodes.find("connected", at + 1)) ++known;
    if (known != nodes_.size() || nodes.find("handshake") != std::string::npos ||
        nodes.find("disconnected") != std::string::npos) {
      return false;
    }
  }
  return true;
}

bool RedisCluster::Ok() {
  for (size_t i = 0; i < nodes_.size(); ++i) {
    if (nodes_[i]->Call({"CLUSTER", "INFO"}).text.find("cluster_state:ok") == std::string::npos) return false;
    if (i < static_cast<size_t>(masters_)) continue;
    if (nodes_[i]->Call({"INFO", "replication"}).text.find("master_link_status:up") == std::string::npos) return false;
  }
  // Each knows whose replica is whose, so that a failover is voted for.
  for (const auto& node : nodes_) {
    const std::string nodes = node->Call({"CLUSTER", "NODES"}).text;
    size_t replicas = 0;
    for (size_t at = nodes.find("slave"); at != std::string::npos; at = nodes.find("slave", at + 1)) ++replicas;
    if (replicas != nodes_.size() - static_cast<size_t>(masters_)) return false;
  }
  return true;
}

std::string RedisCluster::id(int index) { return node(index).Call({"CLUSTER", "MYID"}).text; }

std::vector<RespEndpoint> RedisCluster::endpoints() const {
  std::vector<RespEndpoint> endpoints;
  for (const auto& node : nodes_) endpoints.push_back(node->endpoint());
  return endpoints;
}

std::string RedisCluster::url() const {
  std::string url;
  for (const RespEndpoint& endpoint : endpoints())
    absl::StrAppend(&url, url.empty() ? "redis://" : ",", endpoint.ToString());
  return url;
}

int RedisCluster::OwnerOf(uint16_t slot, int asked) {
  const auto map = SlotMap::Parse(node(asked).Call({"CLUSTER", "SLOTS"}), node(asked).endpoint());
  if (!map.ok() || map->Owner(slot) == nullptr) return -1;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    if (nodes_[i]->endpoint() == *map->Owner(slot)) return static_cast<int>(i);
  }
  return -1;
}

void RedisCluster::BeginMove(uint16_t slot, int from, int to) {
  const std::string number = std::to_string(slot);
  node(to).Call({"CLUSTER", "SETSLOT", number, "IMPORTING", id(from)});
  node(from).Call({"CLUSTER", "SETSLOT", number, "MIGRATING", id(to)});
}

void RedisCluster::MoveKeys(uint16_t slot, int from, int to, int most_keys) {
  const std::string port = std::to_string(node(to).port());
  const RespReply keys = node(from).Call({"CLUSTER", "GETKEYSINSLOT", std::to_string(slot), std::to_string(most_keys)});
  for (const RespReply& key : keys.elements) {
    const RespReply moved = node(from).Call({"MIGRATE", "127.0.0.1", port, key.text, "0", "10000"});
    if (!moved.is(RespReply::Type::kStatus)) throw std::runtime_error("MIGRATE: " + moved.text);
  }
}

void RedisCluster::EndMove(uint16_t slot, int to) {
  const std::string owner = id(to);
  node(to).Call({"CLUSTER", "SETSLOT", std::to_string(slot), "NODE", owner});
  for (int i = 0; i < masters_; ++i) node(i).Call({"CLUSTER", "SETSLOT", std::to_string(slot), "NODE", owner});
}

Certificate::Certificate(const TempDir& dir, const std::string& name)
    : cert_file(dir.File(name + ".crt")), key_file(dir.File(name + ".key")) {
  const ProgramResult made =
      RunProgram({"openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                  "-days", "2", "-subj", "/CN=" + name, "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
                  "-keyout", key_file, "-out", cert_file});
  if (made.exit != ExitStatus::Exited(0)) throw std::runtime_error("openssl: " + made.err);
}

}  // namespace tidepool::test
