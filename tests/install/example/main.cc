// Streams an answer: example HOST:PORT PROMPT [PRESET]
#include <iostream>

#include "client/admin_client.h"
#include "client/generation_client.h"
#include "security/rpc/channel_security.h"

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: example HOST:PORT PROMPT [PRESET]\n";
    return 2;
  }
  auto security = tidepool::ChannelSecurity::Create({});  // tls_ca, token, ...
  if (!security.ok()) {
    std::cerr << security.status().message() << "\n";
    return 2;
  }
  tidepool::GenerationClient client(argv[1], *security);
  tidepool::v1::GenerateRequest request;
  request.set_text(argv[2]);
  request.mutable_stop()->set_max_tokens(8);
  if (argc > 3) request.mutable_compression()->set_preset(argv[3]);
  const auto end = client.Generate(request, [](const tidepool::v1::GenerateResponse& response) {
    if (response.has_tokens()) std::cout << response.tokens().text() << std::flush;
  });
  if (!end.ok()) {
    std::cerr << end.status().message() << "\n";
    return 1;
  }
  std::cout << "\n" << end->usage().generated_tokens() << " tokens\n";

  // A worker that is its own cache service (tidepool serve) answers this, too.
  tidepool::AdminClient admin(argv[1], /*tenant=*/"", *security);
  if (const auto stats = admin.Stats(); stats.ok()) std::cout << stats->sessions() << " sessions\n";
  return 0;
}
