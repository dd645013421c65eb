// Access files: any bytes are refused by line or give a table whose entries are in range and can be found.
#include <string>
#include <string_view>

#include "base/check.h"
#include "security/access_table.h"
#include "tests/fuzz/fuzz_target.h"

namespace tidepool {
namespace {

void RunInput(std::string_view text) {
  const absl::StatusOr<AccessTable> table = AccessTable::Parse(text);
  if (!table.ok()) {
    TIDEPOOL_CHECK(table.status().code() == absl::StatusCode::kInvalidArgument);
    TIDEPOOL_CHECK(table.status().message().size() < 1024);  // whatever the line holds
    return;
  }
  TIDEPOOL_CHECK(table->size() <= kMaxAccessLines);
  for (std::string_view tenant : {"a", "*", ""}) {
    const RateLimits limits = table->LimitsOf(tenant);
    TIDEPOOL_CHECK(limits.requests >= 0 && limits.generated_tokens >= 0);
  }
  // A name of one of the seeds, where it is still there.
  if (const AccessTable::Entry* entry = table->FindCertificate({"worker"}); entry != nullptr) {
    TIDEPOOL_CHECK(!entry->tenant.empty() && entry->tenant.size() <= 128);
    TIDEPOOL_CHECK(entry->role != Role::kUser || entry->tenant != kAllTenants);
    TIDEPOOL_CHECK(text.find(entry->tenant) != std::string_view::npos);
  }
  table->FindToken(TokenDigest("abc"));
}

}  // namespace

namespace test {

std::vector<std::string> FuzzSeeds() {
  return {
      "# comment\ntoken ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad acme user\n",
      "cert worker * worker\ncert ops.example acme admin # why\nrate * 60 -\nrate acme - 1000000\n",
      "cert worker acme user\r\n\r\n\trate\tacme 1 1000000000000\r\n",
      std::string("cert worker \x00\xff user\n", 20),
  };
}

}  // namespace test
}  // namespace tidepool

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tidepool::RunInput({reinterpret_cast<const char*>(data), size});
  return 0;
}
