// What the storage may answer, by what it has acknowledged. A value that was acknowledged as durable is there for ever;
// one that was not is there until a crash or a failing disk, and then may be. A manifest is the one that was last
// acknowledged, or one whose write failed since: that may take effect late, or never. Not thread-safe.
#ifndef TIDEPOOL_TESTS_RELIABILITY_STORAGE_MODEL_H_
#define TIDEPOOL_TESTS_RELIABILITY_STORAGE_MODEL_H_

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cacheservice/api/manifest_store.h"

namespace tidepool::test {

class BlockModel {
 public:
  explicit BlockModel(int blocks) : blocks_(blocks) {}

  void Stored(int number, bool durable) {
    blocks_[number].may_be_there = true;
    blocks_[number].is_there = true;
    blocks_[number].durable |= durable;
  }
  // It failed; the bytes may have got through.
  void PutFailed(int number) { blocks_[number].may_be_there = true; }
  void AllDurable() {
    for (Block& block : blocks_) block.durable |= block.is_there;
  }
  // The disk has failed a call, or the process its memory.
  void OnlyDurableIsSure() {
    for (Block& block : blocks_) block.is_there = block.durable;
  }
  bool MustBeThere(int number) const { return blocks_[number].is_there; }
  bool MayBeThere(int number) const { return blocks_[number].may_be_there; }
  int size() const { return static_cast<int>(blocks_.size()); }

 private:
  struct Block {
    bool may_be_there = false, is_there = false, durable = false;
  };
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
