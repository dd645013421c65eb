#include "bench/replay/synthetic_traces.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace tidepool::bench {
namespace {

constexpr double kHour = 3600;

class Maker {
 public:
  explicit Maker(uint32_t seed) : state_(uint64_t{seed} * 2 + 1) {}

  // Conversations: a first prompt, then turns that add two blocks on average after a time to read, think and write.
  void Chat(int sessions, double median_pause, double from = 0) {
    for (int i = 0; i < sessions; ++i) {
      double second = from + kHour * Uniform();
      std::vector<uint64_t> context = Fresh(2 + Below(39));
      do {
        Ask(second, context, 1);
        Append(&context, Fresh(static_cast<int>(-2 * std::log(1 - Uniform()))));
        second += median_pause * std::exp(0.9 * Normal());
      } while (Uniform() < 0.55);
    }
  }

  // Tool calls behind one of 30 system prompts; a third goes on for some calls, seconds apart.
  void Agents(int tasks, double from = 0) {
    const std::vector<std::vector<uint64_t>> prompts = Prompts(30, 4, 30);
    for (int i = 0; i < tasks; ++i) {
      double second = from + kHour * Uniform();
      std::vector<uint64_t> context = prompts[Popular(prompts.size(), 1)];
      Append(&context, Fresh(1 + Below(15)));
      for (int calls = Uniform() < 0.35 ? 2 + Below(9) : 1; calls > 0; --calls) {
        Ask(second, context, 1);
        Append(&context, Fresh(Below(5)));
        second += 2 + 23 * Uniform();
      }
    }
  }

  // Requests that nothing follows, behind one of 200 system prompts.
  void OneShot(int requests) {
    const std::vector<std::vector<uint64_t>> prompts = Prompts(200, 3, 25);
    for (int i = 0; i < requests; ++i) Ask(kHour * Uniform(), prompts[Popular(prompts.size(), 0.9)], 1 + Below(30));
  }

  // Long documents, each asked some questions within minutes.
  void Documents(int documents, double from = 0) {
    constexpr int kQuestions[] = {1, 1, 2, 3, 5, 8, 15};
    for (int i = 0; i < documents; ++i) {
      const std::vector<uint64_t> document = Fresh(10 + Below(111));
      double second = from + kHour * Uniform();
      for (int questions = kQuestions[Below(7)]; questions > 0; --questions) {
        Ask(second, document, 1 + Below(2));
        second -= 60 * std::log(1 - Uniform());
      }
    }
  }

  // The same 250 documents over and over.
  void Loop(int requests) {
    const std::vector<std::vector<uint64_t>> documents = Prompts(250, 20, 20);
    for (int i = 0; i < requests; ++i) Ask(i * kHour / requests, documents[i % documents.size()], 1);
  }

  // Documents asked for by popularity, at any time.
  void Popularity(int requests) {
    const std::vector<std::vector<uint64_t>> documents = Prompts(2000, 2, 40);
    for (int i = 0; i < requests; ++i) Ask(kHour * Uniform(), documents[Popular(documents.size(), 0.8)], 1);
  }

  std::vector<SyntheticRequest> Finish() && {
    std::stable_sort(requests_.begin(), requests_.end(),
                     [](const SyntheticRequest& a, const SyntheticRequest& b) { return a.second < b.second; });
    return std::move(requests_);
  }

 private:
  uint64_t Next() {  // splitmix64
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  double Uniform() { return static_cast<double>(Next() >> 11) * 0x1p-53; }
  int Below(int end) { return static_cast<int>(Uniform() * end); }
  double Normal() { return std::sqrt(-2 * std::log(1 - Uniform())) * std::cos(6.283185307179586 * Uniform()); }
  // An index below `count`, i with a weight of 1 / (i + 1)^exponent.
  size_t Popular(size_t count, double exponent) {
    double sum = 0;
    for (size_t i = 0; i < count; ++i) sum += std::pow(i + 1.0, -exponent);
    double left = Uniform() * sum;
    size_t i = 0;
    while (i + 1 < count && (left -= std::pow(i + 1.0, -exponent)) > 0) ++i;
    return i;
  }

  std::vector<uint64_t> Fresh(int count) {
    std::vector<uint64_t> ids(count);
    for (uint64_t& id : ids) id = next_id_++;
    return ids;
  }
  std::vector<std::vector<uint64_t>> Prompts(int count, int least, int most) {
    std::vector<std::vector<uint64_t>> prompts(count);
    for (auto& prompt : prompts) prompt = Fresh(least + Below(most - least + 1));
    return prompts;
  }
  static void Append(std::vector<uint64_t>* to, const std::vector<uint64_t>& more) {
    to->insert(to->end(), more.begin(), more.end());
  }
  // A request for `context` and blocks of its own, the last of which is never full.
  void Ask(double second, const std::vector<uint64_t>& context, int own) {
    requests_.push_back({.second = second, .blocks = context});
    Append(&requests_.back().blocks, Fresh(own));
  }

  uint64_t state_;
  uint64_t next_id_ = 0;
  std::vector<SyntheticRequest> requests_;
};

}  // namespace

const std::vector<SyntheticKind>& SyntheticKinds() {
  static const std::vector<SyntheticKind> kinds = {
      {"chat", "conversations with a median pause of 2 minutes"},
      {"fast_chat", "conversations with a median pause of 20 seconds"},
      {"agents", "tool calls behind shared system prompts"},
      {"one_shot", "unrelated requests behind shared system prompts"},
      {"documents", "long documents with some questions each"},
      {"loop", "the same documents in turn"},
      {"popularity", "documents by popularity"},
      {"mix", "chat, agents, one_shot, documents and popularity at a time"},
      {"phases", "an hour of chat, one of agents, one of documents, one of chat"},
  };
  return kinds;
}

absl::StatusOr<std::vector<SyntheticRequest>> MakeSyntheticTrace(const std::string& kind, uint32_t seed) {
  Maker maker(seed);
  if (kind == "chat") {
    maker.Chat(5000, 120);
  } else if (kind == "fast_chat") {
    maker.Chat(5000, 20);
  } else if (kind == "agents") {
    maker.Agents(5000);
  } else if (kind == "one_shot") {
    maker.OneShot(12000);
  } else if (kind == "documents") {
    maker.Documents(900);
  } else if (kind == "loop") {
    maker.Loop(10000);
  } else if (kind == "popularity") {
    maker.Popularity(12000);
  } else if (kind == "mix") {
    maker.Chat(1500, 120);
    maker.Agents(1500);
    maker.OneShot(3000);
    maker.Documents(250);
    maker.Popularity(2000);
  } else if (kind == "phases") {
    maker.Chat(2000, 120);
    maker.Agents(2000, kHour);
    maker.Documents(300, 2 * kHour);
    maker.Chat(2000, 120, 3 * kHour);
  } else {
    std::string names;
    for (const SyntheticKind& known : SyntheticKinds()) absl::StrAppend(&names, names.empty() ? "" : ", ", known.name);
    return absl::InvalidArgumentError(absl::StrCat("'", kind, "' is not one of ", names));
  }
  return std::move(maker).Finish();
}

}  // namespace tidepool::bench
