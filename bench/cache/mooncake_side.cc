// Values through Mooncake Store, whose client is mooncake_peer.py: it does what each line of its input says.
#include <charconv>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "bench/cache/side.h"
#include "tests/support/process.h"

namespace tidepool::bench {
namespace {

class MooncakeSide final : public Side {
 public:
  explicit MooncakeSide(const std::string& python)
      : process_({python, TIDEPOOL_SOURCE_DIR "/bench/cache/mooncake_peer.py", "serve"}) {
    constexpr std::string_view kListening = "listening on ";
    const std::string line = process_.WaitForLine(kListening);
    const std::string pid = line.substr(line.find(kListening) + kListening.size());
    TIDEPOOL_CHECK(std::from_chars(pid.data(), pid.data() + pid.size(), holder_).ec == std::errc());
  }

  std::string name() const override { return "mooncake"; }
  int pid() const override { return holder_; }
  void PreparePut(absl::Span<const Item> items) override {
    if (turn_ == 0) Ask("put", 0, items);  // the client makes its values
    ++turn_;
  }
  void Put(absl::Span<const Item> items) override { Ask("put", turn_, items); }
  ReadValues Get(absl::Span<const Item> items) override {
    Ask("get", turn_, items);
    return {};
  }
  void Compare(const ReadValues&, absl::Span<const Item>) override { Do("check"); }

 private:
  void Ask(const char* what, int turn, absl::Span<const Item> items) {
    Do(absl::StrCat(what, " ", turn, " ", items[0].value->size(), " ", items.size()));
  }
  void Do(const std::string& line) {
    process_.WriteStdin(line + "\n");
    process_.WaitForLine(absl::StrCat("done ", asked_++, "."));
  }

  test::ChildProcess process_;
  int holder_ = 0;
  int turn_ = 0;
  int asked_ = 0;
};

}  // namespace

std::unique_ptr<Side> MakeMooncakeSide(const std::string& python) { return std::make_unique<MooncakeSide>(python); }

}  // namespace tidepool::bench
