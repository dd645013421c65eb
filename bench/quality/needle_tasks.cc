#include "bench/quality/needle_tasks.h"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/check.h"
#include "bench/quality/or_die.h"

namespace tidepool::quality {
namespace {

constexpr char kOpening[] = "<|im_start|>user\nRead this text and remember the facts in it.\n\n";
constexpr char kClosing[] = "<|im_end|>\n<|im_start|>assistant\nI have read the text.<|im_end|>\n";
constexpr double kDepths[] = {0.10, 0.35, 0.60, 0.85};
constexpr const char* kCities[] = {"Lisbon", "Nairobi", "Oslo",   "Lima",  "Vienna", "Cairo", "Dublin", "Seoul",
                                   "Madrid", "Quito",   "Athens", "Hanoi", "Prague", "Accra", "Berlin", "Tokyo"};

// Five digits, no two alike. The engine's sequence is part of the C++ standard, its distributions are not.
class Numbers {
 public:
  explicit Numbers(uint64_t seed) : random_(seed) {}
  std::string Next() {
    for (;;) {
      const std::string number = std::to_string(10000 + random_() % 90000);
      if (taken_.insert(number).second) return number;
    }
  }

 private:
  std::mt19937_64 random_;
  std::set<std::string> taken_;
};

// The text of a question ends with a space: digits are tokens of their own, so question and answer can be encoded
// apart.
std::pair<std::string, std::string> Question(const std::string& asked, const std::string& begun,
                                             const std::string& answer) {
  return {absl::StrCat("<|im_start|>user\nWhat is ", asked, "?<|im_end|>\n<|im_start|>assistant\n", begun, " is: "),
          answer};
}

// The largest count whose text has at most `tokens` tokens.
std::string Longest(int most, int tokens, const Tokenizer& tokenizer, const std::function<std::string(int)>& text) {
  int low = 1, high = most;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (static_cast<int>(tokenizer.Encode(text(middle), true, false).size()) <= tokens) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return text(low);
}

// `words` words of paragraphs from the given one on, with the needles as paragraphs of their own.
std::string Haystack(const std::vector<std::string>& paragraphs, size_t first, int words,
                     const std::vector<std::pair<double, std::string>>& needles) {
  std::vector<std::string> parts;
  for (size_t p = first; words > 0; ++p) {
    std::vector<std::string> of_one = absl::StrSplit(paragraphs[p % paragraphs.size()], ' ');
    if (static_cast<int>(of_one.size()) > words) of_one.resize(words);
    words -= static_cast<int>(of_one.size());
    parts.push_back(absl::StrJoin(of_one, " "));
  }
  for (auto needle = needles.rbegin(); needle != needles.rend(); ++needle) {
    parts.insert(parts.begin() + static_cast<int64_t>(needle->first * static_cast<double>(parts.size())),
                 needle->second);
  }
  return absl::StrCat(kOpening, absl::StrJoin(parts, "\n\n"), kClosing);
}

}  // namespace

std::vector<std::string> Paragraphs(const std::string& text) {
  std::vector<std::string> paragraphs;
  std::vector<std::string> lines = absl::StrSplit(text, '\n');
  lines.push_back("");
  std::string paragraph;
  for (const std::string& line : lines) {
    const std::vector<std::string> words = absl::StrSplit(line, absl::ByAnyChar(" \t\f"), absl::SkipEmpty());
    if (words.empty()) {
      if (paragraph.size() > 40) paragraphs.push_back(paragraph);
      paragraph.clear();
    } else {
      absl::StrAppend(&paragraph, paragraph.empty() ? "" : " ", absl::StrJoin(words, " "));
    }
  }
  return paragraphs;
}

std::vector<NeedleTask> ReadNeedleTasks(const std::string& path) {
  std::vector<NeedleTask> tasks;
  for (const nlohmann::json& one : nlohmann::json::parse(ReadAll(path))) {
    NeedleTask& task = tasks.emplace_back();
    task.context = one["context"].get<std::string>();
    for (const nlohmann::json& question : one["questions"]) {
      task.questions.emplace_back(question["question"].get<std::string>(), question["answer"].get<std::string>());
    }
  }
  return tasks;
}

std::vector<NeedleTask> MakeNeedleTasks(const std::string& kind, int tokens, int count,
                                        const std::vector<std::string>& haystack, const Tokenizer& tokenizer) {
  TIDEPOOL_CHECK(!haystack.empty());
  std::vector<NeedleTask> tasks;
  for (int i = 0; i < count; ++i) {
    NeedleTask& task = tasks.emplace_back();
    Numbers numbers(1000 * tokens + i);
    if (kind == "kv") {
      std::vector<std::pair<std::string, std::string>> records;
      for (int r = 0; r < tokens / 8; ++r) {
        std::string key = numbers.Next();
        records.emplace_back(std::move(key), numbers.Next());
      }
      int shown = 0;
      task.context = Longest(static_cast<int>(records.size()), tokens, tokenizer, [&](int lines) {
        shown = lines;
        std::string text = kOpening;
        for (int r = 0; r < lines; ++r)
          absl::StrAppend(&text, "Record ", records[r].first, ": ", records[r].second, "\n");
        return text + kClosing;
      });
      for (double depth : kDepths) {
        const auto& [key, value] = records[static_cast<int>(depth * shown)];
        task.questions.push_back(Question("the value of record " + key, "The value of record " + key, value));
      }
      continue;
    }
    std::vector<std::pair<double, std::string>> needles;
    if (kind == "tracking") {
      const std::string value = numbers.Next();
      std::string last;
      for (int v = 0; v < 4; ++v) {
        const std::string name = absl::StrCat("X", 10 * (i + 1) + v);
        needles.emplace_back(kDepths[v], last.empty()
                                             ? absl::StrCat("Variable ", name, " is set to: ", value, ".")
                                             : absl::StrCat("Variable ", name, " is set to variable ", last, "."));
        last = name;
        if (v > 0)
          task.questions.push_back(Question("the value of variable " + name, "The value of variable " + name, value));
      }
    } else {
      TIDEPOOL_CHECK(kind == "single" || kind == "multi");
      for (int n = 0; n < (kind == "single" ? 1 : 4); ++n) {
        const std::string city = kCities[(4 * i + n) % std::size(kCities)], value = numbers.Next();
        needles.emplace_back(kDepths[kind == "single" ? i % 4 : n],
                             absl::StrCat("One of the special magic numbers for ", city, " is: ", value, "."));
        task.questions.push_back(
            Question("the special magic number for " + city, "The special magic number for " + city, value));
      }
    }
    task.context = Longest(tokens, tokens, tokenizer,
                           [&](int words) { return Haystack(haystack, static_cast<size_t>(7) * i, words, needles); });
  }
  return tasks;
}

}  // namespace tidepool::quality
