#include "worker/engine/text_stream.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <tuple>

namespace tidepool {
namespace {

constexpr char kMark[] = "\xef\xbf\xbd";

std::string Repaired(std::string_view bytes) {
  Utf8Repair repair;
  std::string text;
  repair.Push(bytes, text);
  repair.Finish(text);
  return text;
}

// One code point from the beginning of `bytes` by arithmetic instead of tables: its length, or 0.
size_t CharacterLength(std::string_view bytes) {
  const auto at = [&](size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const size_t length = at(0) < 0x80 ? 1 : at(0) >> 5 == 6 ? 2 : at(0) >> 4 == 14 ? 3 : at(0) >> 3 == 30 ? 4 : 0;
  if (length == 0 || bytes.size() < length) return 0;
  unsigned code = length == 1 ? at(0) : at(0) & (0x7f >> length);
  for (size_t i = 1; i < length; ++i) {
    if (at(i) >> 6 != 2) return 0;
    code = code << 6 | (at(i) & 0x3f);
  }
  const unsigned least[] = {0, 0, 0x80, 0x800, 0x10000};
  return code < least[length] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000) ? 0 : length;
}

// Whether some continuation makes `bytes` (1 to 3) a character.
bool CanComplete(std::string_view bytes) {
  for (size_t more = 1; more <= 4 - bytes.size(); ++more) {
    for (const unsigned char fill : {0x80, 0x90, 0x9f, 0xa0, 0xbf}) {
      std::string tried(bytes);
      tried += static_cast<char>(fill);
      tried.append(more - 1, '\x80');
      if (CharacterLength(tried) == tried.size()) return true;
    }
  }
  return false;
}

std::string NaiveRepair(std::string_view bytes) {
  std::string text;
  while (!bytes.empty()) {
    size_t length = CharacterLength(bytes);
    if (length > 0) {
      text += bytes.substr(0, length);
    } else {
      text += kMark;
      for (length = 1; length < 3 && length < bytes.size() && CanComplete(bytes.substr(0, length + 1));) ++length;
      if (!CanComplete(bytes.substr(0, 1))) length = 1;
    }
    bytes.remove_prefix(length);
  }
  return text;
}

TEST(Utf8RepairTest, ValidTextIsUnchanged) {
  const std::string text = "a\u00e9\u20ac\U0001f600 \ud7ff\ue000\U0010ffff";
  EXPECT_EQ(Repaired(text), text);
  EXPECT_TRUE(IsValidUtf8(text));
}

TEST(Utf8RepairTest, EachMaximalPartOfACharacterBecomesOneMark) {
  // The examples of the Unicode standard, section 3.9, tables 3-8 to 3-11.
  const std::string m = kMark;
  EXPECT_EQ(Repaired("\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41"), m + m + m + m + m + m + m + m + "A");
  EXPECT_EQ(Repaired("\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41"), m + m + m + m + m + m + m + m + "A");
  EXPECT_EQ(Repaired("\xf4\x91\x92\x93\xff\x41\x80\xbf\x42"), m + m + m + m + m + "A" + m + m + "B");
  EXPECT_EQ(Repaired("\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41"), m + m + m + m + "A");
}

TEST(Utf8RepairTest, AnIncompleteEndBecomesOneMark) {
  EXPECT_EQ(Repaired("x\xf0\x9f\x98"), std::string("x") + kMark);
  EXPECT_FALSE(IsValidUtf8("x\xf0\x9f\x98"));
}

TEST(Utf8RepairTest, EqualsTheNaiveDecoderOnRandomBytes) {
  std::mt19937 random(1);
  const std::string bytes_of_interest =
      "A\x7f\x80\x8f\x90\x9f\xa0\xbf\xc0\xc1\xc2\xdf\xe0\xe1\xec\xed\xee\xef\xf0\xf1\xf3\xf4\xf5\xff";
  for (int round = 0; round < 20000; ++round) {
    std::string bytes;
    for (size_t n = random() % 10; n > 0; --n) bytes += bytes_of_interest[random() % bytes_of_interest.size()];
    ASSERT_EQ(Repaired(bytes), NaiveRepair(bytes)) << testing::PrintToString(bytes);
  }
}

TEST(TextStreamTest, ACharacterInSeveralPiecesComesWhenItIsComplete) {
  TextStream stream({});
  EXPECT_EQ(stream.Push("a\xe2"), "a");
  EXPECT_EQ(stream.Push("\x82"), "");
  EXPECT_EQ(stream.Push("\xac"), "\u20ac");
  EXPECT_EQ(stream.Finish(), "");
}

TEST(TextStreamTest, ReleasesAtOnceWhatCannotBeginAStopString) {
  TextStream stream({"STOP"});
  EXPECT_EQ(stream.Push("one ST"), "one ");
  EXPECT_EQ(stream.Push("O"), "");
  EXPECT_EQ(stream.Push("NE S"), "STONE ");
  EXPECT_EQ(stream.Push("TOP more"), "");
  EXPECT_EQ(stream.matched(), 0u);
  EXPECT_EQ(stream.Finish(), "");
}

TEST(TextStreamTest, FinishGivesBackABeginningThatCameToNothing) {
  TextStream stream({"###"});
  EXPECT_EQ(stream.Push("end ##"), "end ");
  EXPECT_EQ(stream.Finish(), "##");
  EXPECT_FALSE(stream.matched().has_value());
}

TEST(TextStreamTest, OfMatchesCompleteAtTheSameByteTheLongestCounts) {
  TextStream stream({"c", "abc", "bc"});
  EXPECT_EQ(stream.Push("xxabcabc"), "xx");
  EXPECT_EQ(stream.matched(), 1u);
}

TEST(TextStreamTest, TheMatchThatIsCompleteFirstCountsHoweverTheTextIsSplit) {
  for (const size_t split : {1, 2, 3, 4}) {
    TextStream stream({"abcd", "bc"});
    std::string text = stream.Push(std::string("abcd").substr(0, split));
    if (!stream.matched()) text += stream.Push(std::string("abcd").substr(split));
    EXPECT_EQ(text, "a") << split;
    EXPECT_EQ(stream.matched(), 1u);
  }
}

TEST(TextStreamTest, AMatchWhileStoppingIsForbiddenIsText) {
  TextStream stream({"END"});
  EXPECT_EQ(stream.Push("xEND", false), "xEND");
  EXPECT_EQ(stream.Push("yEN", false), "y");
  EXPECT_EQ(stream.Push("Dz"), "");  // completed when allowed
  EXPECT_EQ(stream.matched(), 0u);
}

TEST(TextStreamTest, TheMarkOfBrokenBytesCanBeAStopString) {
  TextStream stream({kMark});
  EXPECT_EQ(stream.Push("a\xff"), "a");
  EXPECT_EQ(stream.matched(), 0u);
}

struct Cut {
  std::string text;
  bool stopped = false;
};

// The whole text at once: the match with the smallest end, then the smallest begin; ends up to `protected_bytes` (of
// the repaired text) do not count.
Cut NaiveCut(const std::string& text, const std::vector<std::string>& stops, size_t protected_bytes) {
  std::tuple<size_t, size_t> best{text.size() + 1, 0};
  for (const std::string& stop : stops) {
    for (size_t begin = text.find(stop); begin != std::string::npos; begin = text.find(stop, begin + 1)) {
      if (begin + stop.size() > protected_bytes) best = std::min(best, {begin + stop.size(), begin});
    }
  }
  if (std::get<0>(best) > text.size()) return {text, false};
  return {text.substr(0, std::get<1>(best)), true};
}

std::string RandomText(std::mt19937& random, const std::vector<std::string>& alphabet, size_t length) {
  std::string text;
  for (; length > 0; --length) text += alphabet[random() % alphabet.size()];
  return text;
}

TEST(TextStreamTest, EqualsTheCutOfTheWholeTextForAllSplits) {
  // Few symbols, so that stop strings overlap, repeat and nest; some of several bytes, some broken.
  const std::vector<std::string> valid = {"a", "b", "\u00e9", "\u20ac"};
  std::vector<std::string> any = valid;
  any.insert(any.end(), {"a", "b", "\xe2", "\x82", "\xac", "\xff"});
  std::mt19937 random(2);
  int stopped = 0;
  for (int round = 0; round < 20000; ++round) {
    const std::string bytes = RandomText(random, round % 2 ? valid : any, random() % 30);
    std::vector<std::string> stops(random() % 4);
    for (std::string& stop : stops) stop = RandomText(random, valid, 1 + random() % 5);
    const size_t forbidden_pushes = random() % 3 ? 0 : random() % 6;

    TextStream stream(stops);
    std::string emitted;
    size_t at = 0, pushes = 0, protected_bytes = 0;
    Utf8Repair repair;
    std::string repaired;
    while (at < bytes.size() && !stream.matched()) {
      const std::string piece = bytes.substr(at, random() % 5);
      at += piece.size();
      const bool may_stop = pushes++ >= forbidden_pushes;
      repair.Push(piece, repaired);
      if (!may_stop) protected_bytes = repaired.size();
      const std::string released = stream.Push(piece, may_stop);
      ASSERT_TRUE(IsValidUtf8(released));
      emitted += released;
      // Nothing is held back without a reason: a character that has begun is not in `repaired` yet.
      if (!stream.matched()) {
        const std::string held = repaired.substr(emitted.size());
        const bool is_beginning =
            std::any_of(stops.begin(), stops.end(), [&](const std::string& stop) { return stop.starts_with(held); });
        ASSERT_TRUE(held.empty() || is_beginning) << held;
      }
    }
    const bool matched = stream.matched().has_value();
    emitted += stream.Finish();
    const std::string whole = NaiveRepair(bytes);
    const Cut expected = NaiveCut(whole, stops, protected_bytes);
    // The naive cut also sees a match that only the mark of an incomplete end would complete; no stop string here has
    // one.
    ASSERT_EQ(emitted, expected.text) << testing::PrintToString(bytes) << testing::PrintToString(stops);
    ASSERT_EQ(matched, expected.stopped);
    stopped += matched;
  }
  EXPECT_GT(stopped, 3000);
  EXPECT_LT(stopped, 17000);
}

}  // namespace
}  // namespace tidepool
