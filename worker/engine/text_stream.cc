#include "worker/engine/text_stream.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace tidepool {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";  // U+FFFD

// How a character that begins with `byte` goes on: Unicode 15, table 3-7. missing 0: not a first byte of several.
struct Continuation {
  int missing = 0;
  unsigned char low = 0x80, high = 0xbf;  // of the second byte; later ones are 80 to BF
};

Continuation ContinuationOf(unsigned char byte) {
  if (byte >= 0xc2 && byte <= 0xdf) return {1, 0x80, 0xbf};
  if (byte == 0xe0) return {2, 0xa0, 0xbf};  // shorter forms exist below
  if (byte == 0xed) return {2, 0x80, 0x9f};  // surrogates above
  if (byte >= 0xe1 && byte <= 0xef) return {2, 0x80, 0xbf};
  if (byte == 0xf0) return {3, 0x90, 0xbf};
  if (byte >= 0xf1 && byte <= 0xf3) return {3, 0x80, 0xbf};
  if (byte == 0xf4) return {3, 0x80, 0x8f};  // U+10FFFF is the last
  return {};
}

}  // namespace

bool IsValidUtf8(std::string_view text) {
  std::string repaired;
  Utf8Repair repair;
  repair.Push(text, repaired);
  repair.Finish(repaired);
  return repaired == text;
}

void Utf8Repair::Push(std::string_view bytes, std::string& out) {
  for (const char byte : bytes) PushByte(static_cast<unsigned char>(byte), out);
}

void Utf8Repair::Finish(std::string& out) {
  if (missing_ > 0) out += kReplacement;
  begun_.clear();
  missing_ = 0;
}

void Utf8Repair::PushByte(unsigned char byte, std::string& out) {
  if (missing_ > 0) {
    if (byte >= low_ && byte <= high_) {
      begun_.push_back(static_cast<char>(byte));
      low_ = 0x80;
      high_ = 0xbf;
      if (--missing_ > 0) return;
      out += begun_;
      begun_.clear();
      return;
    }
    Finish(out);  // the character broke off; this byte starts anew
  }
  if (byte < 0x80) {
    out.push_back(static_cast<char>(byte));
    return;
  }
  const Continuation next = ContinuationOf(byte);
  if (next.missing == 0) {
    out += kReplacement;
    return;
  }
  begun_.assign(1, static_cast<char>(byte));
  missing_ = next.missing;
  low_ = next.low;
  high_ = next.high;
}

TextStream::Matcher::Matcher(std::string stop_string) : pattern(std::move(stop_string)), border(pattern.size() + 1, 0) {
  for (size_t n = 1; n < pattern.size(); ++n) {
    size_t k = border[n];
    while (k > 0 && pattern[k] != pattern[n]) k = border[k];
    border[n + 1] = pattern[k] == pattern[n] ? k + 1 : 0;
  }
}

bool TextStream::Matcher::Step(char byte) {
  while (length > 0 && pattern[length] != byte) length = border[length];
  if (pattern[length] == byte) ++length;
  if (length < pattern.size()) return false;
  length = border[length];
  return true;
}

TextStream::TextStream(std::vector<std::string> stop_strings) {
  for (std::string& text : stop_strings) {
    TIDEPOOL_CHECK(!text.empty() && IsValidUtf8(text));
    matchers_.emplace_back(std::move(text));
  }
}

std::string TextStream::Push(std::string_view bytes, bool may_stop) {
  TIDEPOOL_CHECK(!matched_.has_value());
  repair_.Push(bytes, held_);
  return Release(may_stop);
}

std::string TextStream::Finish() {
  if (matched_.has_value()) return {};
  repair_.Finish(held_);
  return std::exchange(held_, {});
}

std::string TextStream::Release(bool may_stop) {
  for (; scanned_ < held_.size(); ++scanned_) {
    for (size_t i = 0; i < matchers_.size(); ++i) {
      const bool complete = matchers_[i].Step(held_[scanned_]);
      if (!complete || !may_stop) continue;
      if (!matched_ || matchers_[i].pattern.size() > matchers_[*matched_].pattern.size()) matched_ = i;
    }
    if (!matched_.has_value()) continue;
    const size_t match_end = scanned_ + 1;
    held_.resize(match_end - matchers_[*matched_].pattern.size());
    return std::exchange(held_, {});
  }
  // What may be the beginning of a stop string stays. It begins at a character, as the stop strings do.
  size_t keep = 0;
  for (const Matcher& matcher : matchers_) keep = std::max(keep, matcher.length);
  std::string released = held_.substr(0, held_.size() - keep);
  held_.erase(0, released.size());
  scanned_ = held_.size();
  return released;
}

}  // namespace tidepool
