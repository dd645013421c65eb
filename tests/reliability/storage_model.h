// What the storage may answer, by what it has acknowledged. A value that was acknowledged as durable is there for ever;
// one that was not is there until a crash or a failing disk, and then may be. With a time to live both are there for so
// long after they were last used, as far as that is remembered. A manifest is the one that was last
// acknowledged, or one whose write failed since: that may take effect late, or never. Not thread-safe.
#ifndef TIDEPOOL_TESTS_RELIABILITY_STORAGE_MODEL_H_
#define TIDEPOOL_TESTS_RELIABILITY_STORAGE_MODEL_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cacheservice/api/manifest_store.h"

namespace tidepool::test {

class BlockModel {
 public:
  // ttl_ms: blocks that nobody uses for so long may be gone; 0: they never are. Times are the simulation's.
  BlockModel(int blocks, int64_t ttl_ms) : ttl_ms_(ttl_ms), blocks_(blocks) {}

  void Stored(int number, bool durable, int64_t now_ms) {
    Block& block = blocks_[number];
    if (!block.may_be_there) block.written_since_ms = now_ms;
    block.written_until_ms = block.used_ms = now_ms;
    block.may_be_there = true;
    block.is_there = true;
    block.durable |= durable;
  }
  // It failed; the bytes may have got through.
  void PutFailed(int number, int64_t now_ms) {
    Block& block = blocks_[number];
    if (!block.may_be_there) block.written_since_ms = now_ms;
    block.written_until_ms = now_ms;
    block.may_be_there = true;
  }
  void Used(int number, int64_t now_ms) { blocks_[number].used_ms = now_ms; }
  void AllDurable(int64_t now_ms) {
    for (Block& block : blocks_) {
      if (block.is_there && !block.durable) block.written_until_ms = now_ms;
      block.durable |= block.is_there;
    }
  }
  // The disk has failed a call, or the process its memory.
  void OnlyDurableIsSure() {
    for (Block& block : blocks_) block.is_there = block.durable;
  }
  // The process has ended, and nobody remembers but what is written.
  void UsesAreForgotten() {
    for (Block& block : blocks_) block.used_ms = block.written_since_ms;
  }
  // What was due has left the disk, or was used and is written anew. failed: the disk has, and nobody knows how far it
  // came.
  void Expired(bool failed, int64_t now_ms) {
    const int64_t since_ms = now_ms - ttl_ms_;
    for (Block& block : blocks_) {
      if (failed) {
        block.written_until_ms = now_ms;
      } else if (IsSure(block, now_ms) && block.durable) {
        const bool is_due = block.written_until_ms < since_ms - kRoundedMs;
        block.written_since_ms = is_due ? now_ms : std::max(block.written_since_ms, since_ms);
        if (is_due) block.written_until_ms = now_ms;
      }
    }
  }
  bool MustBeThere(int number, int64_t now_ms) const { return IsSure(blocks_[number], now_ms); }
  bool MayBeThere(int number) const { return blocks_[number].may_be_there; }
  int size() const { return static_cast<int>(blocks_.size()); }

 private:
  // The tiers count seconds.
  static constexpr int64_t kRoundedMs = 2000;

  struct Block {
    bool may_be_there = false, is_there = false, durable = false;
    int64_t used_ms = 0;                                 // then or later
    int64_t written_since_ms = 0, written_until_ms = 0;  // what is on the disk, if anything: between these
  };
  bool IsSure(const Block& block, int64_t now_ms) const {
    return block.is_there && (ttl_ms_ == 0 || now_ms < block.used_ms + ttl_ms_ - kRoundedMs);
  }

  const int64_t ttl_ms_;
  std::vector<Block> blocks_;
};

class ManifestModel {
 public:
  using Manifest = std::optional<SessionManifest>;  // nullopt: no such session

  // A write was acknowledged.
  void Wrote(const std::string& session, Manifest manifest) {
    sessions_[session] = {.sure = std::move(manifest), .maybe = {}, .settling = 0};
  }
  void WriteFailed(const std::string& session, Manifest manifest) {
    sessions_[session].maybe.push_back(std::move(manifest));
  }
  // What is read from now on is all that there is: the log has been replayed.
  void Restarted() {
    for (auto& [id, session] : sessions_) session.settling = session.maybe.size();
  }
  // Whether a read may give this; it is what there is from then on, but for writes that may still take effect.
  bool Read(const std::string& id, const Manifest& manifest) {
    Session& session = sessions_[id];
    bool allowed = manifest == session.sure;
    for (const Manifest& maybe : session.maybe) allowed = allowed || manifest == maybe;
    if (!allowed) return false;
    session.sure = manifest;
    session.maybe.erase(session.maybe.begin(), session.maybe.begin() + static_cast<std::ptrdiff_t>(session.settling));
    session.settling = 0;
    std::erase(session.maybe, manifest);
    return true;
  }
  const Manifest& sure(const std::string& id) { return sessions_[id].sure; }
  bool IsSure(const std::string& id) { return sessions_[id].maybe.empty(); }

 private:
  struct Session {
    Manifest sure;
    std::vector<Manifest> maybe;
    size_t settling = 0;  // the first of them: written before a restart, the next read decides
  };
  std::map<std::string, Session> sessions_;
};

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_RELIABILITY_STORAGE_MODEL_H_
