// The other end of bench/cache's raw streams, a process of its own.
//
//   raw_server ADDRESS        host:0 or unix:PATH; prints the address that it listens on, ends with its standard input
#include <grpcpp/grpcpp.h>

#include <cstdio>
#include <string>

#include "base/freed_memory.h"
#include "base/limits.h"
#include "base/mutex_checks.h"
#include "bench/cache/raw_streams.h"

int main(int argc, char** argv) {
  tidepool::KeepFreedMemory();  // as tidepool-cache
  tidepool::SkipMutexChecks();
  if (argc != 2) {
    std::fprintf(stderr, "usage: raw_server ADDRESS\n");
    return 2;
  }
  const std::string address = argv[1];
  const std::unique_ptr<grpc::Service> service = tidepool::bench::MakeRawService();
  grpc::ServerBuilder builder;
  builder.SetMaxReceiveMessageSize(static_cast<int>(tidepool::kMaxMessageBytes));
  int port = 0;
  builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(service.get());
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) return 1;
  const bool is_unix = address.rfind("unix:", 0) == 0;
  const std::string bound = is_unix ? address : address.substr(0, address.rfind(':') + 1) + std::to_string(port);
  std::printf("listening on %s\n", bound.c_str());
  std::fflush(stdout);
  while (std::getchar() != EOF) {
  }
  server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
  return 0;
}
