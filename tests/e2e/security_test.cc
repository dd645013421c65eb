// Real processes over mutual TLS: the command line, a worker and a cache service; who gets in, who sees what, and what
// the others are told.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "security/access_table.h"
#include "tests/support/access_lines.h"
#include "tests/support/certificates.h"
#include "tests/support/paths.h"
#include "tests/support/process.h"
#include "tests/support/temp_dir.h"

namespace tidepool {
namespace {

using test::TokenLine;

using nlohmann::json;
using test::ExitStatus;
using test::ProgramResult;
using testing::HasSubstr;
using testing::Not;

std::string TinyModel() { return test::DataPath("tiny_models/llama_f32.gguf"); }

// A worker and its cache service, both with certificates of one CA and an access file.
class SecuredCluster {
 public:
  explicit SecuredCluster(std::string model = TinyModel()) : model_(std::move(model)) {
    WriteAccess("");
    StartCache();
    StartWorker();
  }

  void WriteAccess(const std::string& more) {
    std::ofstream(access_ + ".new") << "cert worker * worker\n"
                                    << TokenLine("alice", "alice", "user") << TokenLine("bob", "bob", "user")
                                    << TokenLine("carol", "carol", "user")
                                    << TokenLine("alices-admin", "alice", "admin")
                                    << TokenLine("operator", "*", "admin") << more;
    std::rename((access_ + ".new").c_str(), access_.c_str());
  }

  void StartCache() {
    const std::string port_file = dir_.File("cache.port");
    std::remove(port_file.c_str());
    cache_ = Start({"tidepool-cache", "--data-dir=" + dir_.File("data"), "--tls-require-client",
                    absl::StrCat("--listen=127.0.0.1:", cache_port_)},
                   "server", port_file);
    cache_port_ = cache_->WaitForPortFile(port_file);  // the same when it is started again
    cache_address_ = absl::StrCat("127.0.0.1:", cache_port_);
  }
  void StartWorker() {
    const std::string port_file = dir_.File("worker.port");
    worker_ = Start({"tidepool-worker", "--model=" + model_, "--cache=" + cache_address_, "--listen=127.0.0.1:0"},
                    "worker", port_file);
    worker_address_ = absl::StrCat("127.0.0.1:", worker_->WaitForPortFile(port_file));
  }

  // The command line with a token in the environment; with the client's certificate where it asks the cache.
  ProgramResult Tidepool(const std::string& token, std::vector<std::string> arguments) const {
    const bool admin = arguments[0] == "admin";
    arguments.insert(arguments.begin(), test::BinaryPath("tidepool"));
    arguments.push_back("--tls-ca=" + files_.ca());
    arguments.push_back(admin ? "--cache=" + cache_address_ : "--worker=" + worker_address_);
    if (admin) {
      arguments.push_back("--tls-cert=" + files_.File("client.pem"));
      arguments.push_back("--tls-key=" + files_.File("client.key"));
    }
    return test::RunProgram(arguments, "", {{"TIDEPOOL_TOKEN", token}});
  }
  ProgramResult Generate(const std::string& token, std::vector<std::string> more = {}) const {
    std::vector<std::string> arguments = {"generate", "--prompt=" + std::string(150, 'x'), "--max-tokens=4",
                                          "--ignore-eos", "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Tidepool(token, arguments);
  }

  const test::Certificates& files() const { return files_; }
  test::Certificates& files() { return files_; }
  const std::string& worker_address() const { return worker_address_; }
  const std::string& cache_address() const { return cache_address_; }
  test::ChildProcess& cache() { return *cache_; }
  test::ChildProcess& worker() { return *worker_; }

 private:
  std::unique_ptr<test::ChildProcess> Start(std::vector<std::string> argv, const std::string& identity,
                                            const std::string& port_file) const {
    argv[0] = test::BinaryPath(argv[0]);
    for (const std::string& flag :
         {"--port-file=" + port_file, "--access-file=" + access_, "--tls-ca=" + files_.ca(),
          "--tls-cert=" + files_.File(identity + ".pem"), "--tls-key=" + files_.File(identity + ".key")}) {
      argv.push_back(flag);
    }
    return std::make_unique<test::ChildProcess>(argv);
  }

  test::TempDir dir_;
  test::Certificates files_;
  const std::string access_ = dir_.File("access"), model_;
  int cache_port_ = 0;
  std::unique_ptr<test::ChildProcess> cache_, worker_;
  std::string cache_address_, worker_address_;
};

json Finished(const ProgramResult& result) {
  EXPECT_EQ(result.exit, ExitStatus::Exited(0)) << result.err;
  const size_t at = result.out.rfind("{\"finished\"");
  return at == std::string::npos ? json() : json::parse(result.out.substr(at))["finished"];
}
int Cached(const ProgramResult& result) { return Finished(result)["usage"]["cached_prompt_tokens"].get<int>(); }

class SecurityTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { cluster_ = new SecuredCluster; }
  static void TearDownTestSuite() {
    delete cluster_;
    cluster_ = nullptr;
  }
  // The command fails with this exit code, and says so.
  static void Fails(const ProgramResult& result, int code, const std::string& message) {
    EXPECT_EQ(result.exit, ExitStatus::Exited(code)) << result.err;
    EXPECT_THAT(result.err, HasSubstr(message));
  }

  static SecuredCluster* cluster_;
};

SecuredCluster* SecurityTest::cluster_ = nullptr;

TEST_F(SecurityTest, FromTheCommandLineOverTheWorkerToTheCacheEverythingIsOverMutualTls) {
  const ProgramResult turn = cluster_->Generate("alice", {"--session=durable"});
  EXPECT_EQ(Finished(turn)["usage"]["generated_tokens"], 4);
  const ProgramResult session =
      cluster_->Tidepool("operator", {"admin", "session", "durable", "--tenant=alice", "--json"});
  ASSERT_EQ(session.exit, ExitStatus::Exited(0)) << session.err;
  EXPECT_EQ(json::parse(session.out)["tenant"], "alice");
  EXPECT_GT(json::parse(session.out)["stored_blocks"], 0);
}

TEST_F(SecurityTest, WhoHasNoTokenAWrongOneOrTheWrongRoleIsRefused) {
  Fails(cluster_->Generate(""), 1, "a token is needed");
  Fails(cluster_->Generate("mallory"), 1, "the token is not known here");
  Fails(cluster_->Tidepool("alice", {"admin", "sessions"}), 1, "needs role admin");
  Fails(cluster_->Tidepool("alices-admin", {"admin", "stats"}), 1, "needs an admin of all tenants (*)");
  EXPECT_EQ(cluster_->Tidepool("operator", {"admin", "stats"}).exit, ExitStatus::Exited(0));
  EXPECT_THAT(cluster_->cache().Stderr(),
              HasSubstr("call=\"/tidepool.v1.CacheAdmin/GetStats\" result=PERMISSION_DENIED"));
  EXPECT_THAT(cluster_->worker().Stderr(), Not(HasSubstr("mallory"))) << "no token is ever written down";
}

TEST_F(SecurityTest, TenantsSeeNothingOfOneAnother) {
  // Blocks: until alice hits her own, then bob, who asks the same, hits none.
  const std::string prompt = "--prompt=" + std::string(200, 'y');
  const auto until = std::chrono::steady_clock::now() + test::kProcessTimeout;
  while (Cached(cluster_->Generate("alice", {prompt})) == 0 && std::chrono::steady_clock::now() < until) {
  }
  EXPECT_GT(Cached(cluster_->Generate("alice", {prompt})), 0);
  EXPECT_EQ(Cached(cluster_->Generate("bob", {prompt})), 0);
  // Sessions: the same name is another session, and no admin of one tenant finds the other's.
  ASSERT_GT(Finished(cluster_->Generate("alice", {"--session=private"}))["usage"]["prompt_tokens"], 0);
  EXPECT_EQ(Finished(cluster_->Generate("bob", {"--session=private", "--prompt=hello"}))["usage"]["prompt_tokens"], 5);
  EXPECT_EQ(Finished(cluster_->Generate("bob", {"--session=bobs"}))["usage"]["generated_tokens"], 4);
  const ProgramResult listed = cluster_->Tidepool("alices-admin", {"admin", "sessions"});
  EXPECT_THAT(listed.out, HasSubstr("private"));
  EXPECT_THAT(listed.out, Not(HasSubstr("bobs")));
  Fails(cluster_->Tidepool("alices-admin", {"admin", "session", "bobs"}), 1, "is not stored");
  Fails(cluster_->Tidepool("alices-admin", {"admin", "session", "bobs", "--tenant=bob"}), 1, "tenant: 'bob' is not");
  Fails(cluster_->Tidepool("alices-admin", {"admin", "drop", "bobs", "--tenant=bob"}), 1, "tenant: 'bob' is not");
  EXPECT_EQ(cluster_->Tidepool("operator", {"admin", "drop", "bobs", "--tenant=bob"}).exit, ExitStatus::Exited(0));
  EXPECT_THAT(cluster_->cache().Stderr(), HasSubstr("target=\"bob/bobs\" result=PERMISSION_DENIED"));
  EXPECT_THAT(cluster_->cache().Stderr(), HasSubstr("target=\"bob/bobs\" result=OK"));
}

TEST_F(SecurityTest, ARateBoundsATenantAndNobodyElse) {
  cluster_->WriteAccess("rate carol 2 -\n");
  const auto until = std::chrono::steady_clock::now() + test::kProcessTimeout;
  ProgramResult result;
  do {
    result = cluster_->Generate("carol");
  } while (result.exit == ExitStatus::Exited(0) && std::chrono::steady_clock::now() < until);
  Fails(result, 1, "tenant carol has had its 2 requests of a minute, try again in ");
  EXPECT_EQ(cluster_->Generate("alice").exit, ExitStatus::Exited(0));
  cluster_->WriteAccess("");
}

TEST_F(SecurityTest, WhatIsWrongWithAConnectionIsSaid) {
  const test::Certificates others;
  auto run = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), test::BinaryPath("tidepool"));
    return test::RunProgram(arguments, "", {{"TIDEPOOL_TOKEN", "operator"}});
  };
  const std::string ca = "--tls-ca=" + cluster_->files().ca(), cache = "--cache=" + cluster_->cache_address(),
                    worker = "--worker=" + cluster_->worker_address();
  Fails(run({"policies", worker, "--tls-ca=" + others.ca()}), 3, "not signed by --tls-ca");
  Fails(run({"policies", worker, ca, "--tls-server-name=other"}), 3, "is not for --tls-server-name other");
  Fails(run({"policies", worker}), 3, "does it speak TLS? --tls-ca");
  Fails(run({"admin", "stats", cache, ca}), 3, "does it require a client certificate? --tls-cert");
  Fails(run({"admin", "stats", cache, ca, "--tls-cert=" + others.File("client.pem"),
             "--tls-key=" + others.File("client.key")}),
        3, "does it refuse the client certificate");
  test::Certificates expired;
  expired.Expire("client");
  Fails(run({"admin", "stats", cache, ca, "--tls-cert=" + expired.File("client.pem"),
             "--tls-key=" + expired.File("client.key")}),
        2, "--tls-cert: " + expired.File("client.pem") + ": expired at ");
  // All of it by the environment, too.
  const ProgramResult fine = test::RunProgram({test::BinaryPath("tidepool"), "admin", "stats", cache}, "",
                                              {{"TIDEPOOL_TOKEN", "operator"},
                                               {"TIDEPOOL_TLS_CA", cluster_->files().ca()},
                                               {"TIDEPOOL_TLS_CERT", cluster_->files().File("client.pem")},
                                               {"TIDEPOOL_TLS_KEY", cluster_->files().File("client.key")}});
  EXPECT_EQ(fine.exit, ExitStatus::Exited(0)) << fine.err;
}

TEST_F(SecurityTest, CertificatesAreReplacedUnderARunningAnswer) {
  SecuredCluster cluster(test::ModelPath("SmolLM2-135M-Instruct.Q4_1.gguf"));  // takes seconds for the answer
  test::ChildProcess answer(
      {test::BinaryPath("tidepool"), "generate", "--prompt=hello", "--max-tokens=160", "--ignore-eos", "--json",
       "--session=long", "--worker=" + cluster.worker_address(), "--tls-ca=" + cluster.files().ca()},
      {{"TIDEPOOL_TOKEN", "alice"}});
  answer.WaitForLine("tokens");
  const test::Certificates next;
  cluster.files().ReplaceBy(next);
  // Until the worker and the cache show the new ones, to clients that trust nothing else.
  const auto until = std::chrono::steady_clock::now() + test::kProcessTimeout;
  ProgramResult stats, listed;
  do {
    listed = cluster.Tidepool("alice", {"policies"});
    stats = cluster.Tidepool("operator", {"admin", "stats"});
  } while ((!(stats.exit == ExitStatus::Exited(0)) || !(listed.exit == ExitStatus::Exited(0))) &&
           std::chrono::steady_clock::now() < until);
  EXPECT_EQ(stats.exit, ExitStatus::Exited(0)) << stats.err;
  EXPECT_EQ(listed.exit, ExitStatus::Exited(0)) << listed.err;
  EXPECT_EQ(answer.Wait(), ExitStatus::Exited(0)) << answer.Stderr();
  EXPECT_NE(answer.Stdout().find("\"generated_tokens\":160"), std::string::npos);
  // The worker connects to a cache that is started again: both have read their new certificates.
  cluster.cache().Kill();
  cluster.StartCache();
  EXPECT_GT(Finished(cluster.Generate("alice", {"--session=long"}))["usage"]["cached_prompt_tokens"], 100);
}

TEST(SecurityFlagsTest, WhatIsWrongIsSaidBeforeAnythingIsRead) {
  const test::TempDir dir;
  auto refuses = [](std::vector<std::string> argv, const std::string& flag, const std::string& named) {
    argv[0] = test::BinaryPath(argv[0]);
    argv.push_back(flag);
    const ProgramResult result = test::RunProgram(argv);
    EXPECT_EQ(result.exit, ExitStatus::Exited(2)) << flag << ": " << result.err;
    EXPECT_THAT(result.err, HasSubstr(named));
  };
  const std::vector<std::string> worker = {"tidepool-worker", "--model=/nonexistent", "--cache=127.0.0.1:1"};
  const std::vector<std::string> cache = {"tidepool-cache", "--data-dir=" + dir.File("data")};
  const std::string none = dir.File("none");
  refuses(worker, "--tls-ca=" + none, "--tls-ca: " + none);
  refuses(worker, "--token-file=" + none, "--token-file: " + none);
  refuses(worker, "--access-file=" + none, "--access-file: " + none);
  refuses(cache, "--tls-cert=" + none, "--tls-cert, --tls-key");
  refuses(cache, "--tls-require-client", "--tls-require-client: needs");
  refuses(cache, "--access-file=" + none, "--access-file: " + none);
  std::ofstream(dir.File("access")) << "token abc acme user\n";
  refuses(cache, "--access-file=" + dir.File("access"), "access: line 1: 'abc' is not a SHA-256");
  EXPECT_FALSE(std::ifstream(dir.File("data")).good()) << "nothing was opened";
}

TEST(ListeningTest, OpenlyIsRefusedUnlessItIsSecuredOrAskedFor) {
  const test::TempDir dir;
  const test::Certificates files;
  std::ofstream(dir.File("access")) << "";
  const std::vector<std::string> tls = {"--tls-cert=" + files.File("server.pem"),
                                        "--tls-key=" + files.File("server.key")};
  const std::map<std::string, std::vector<std::string>> programs = {
      {"tidepool-cache", {test::BinaryPath("tidepool-cache"), "--data-dir=" + dir.File("cache")}},
      {"tidepool-worker", {test::BinaryPath("tidepool-worker"), "--model=" + TinyModel()}},
      {"tidepool serve",
       {test::BinaryPath("tidepool"), "serve", "--model=" + TinyModel(), "--data-dir=" + dir.File("serve")}}};
  for (const auto& [name, argv] : programs) {
    auto with = [&argv = argv](std::vector<std::string> more) {
      std::vector<std::string> all = argv;
      all.push_back("--listen=0.0.0.0:0");
      all.insert(all.end(), more.begin(), more.end());
      return all;
    };
    for (const std::vector<std::string>& too_little :
         {std::vector<std::string>{}, tls, std::vector<std::string>{"--access-file=" + dir.File("access")}}) {
      const ProgramResult refused = test::RunProgram(with(too_little));
      EXPECT_EQ(refused.exit, ExitStatus::Exited(2)) << name;
      EXPECT_THAT(refused.err, HasSubstr("--tls-cert and --tls-key with --access-file")) << name;
    }
    std::vector<std::string> secured = tls;
    secured.push_back("--access-file=" + dir.File("access"));
    for (const std::vector<std::string>& enough : {std::vector<std::string>{"--insecure"}, secured}) {
      test::ChildProcess process(with(enough));
      process.WaitForLine("listening on 0.0.0.0:");
      EXPECT_EQ(process.Terminate(), ExitStatus::Exited(0)) << name;
    }
  }
}

}  // namespace
}  // namespace tidepool
