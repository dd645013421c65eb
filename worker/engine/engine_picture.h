// What an engine works on right now, for people who watch it.
#ifndef TIDEPOOL_WORKER_ENGINE_ENGINE_PICTURE_H_
#define TIDEPOOL_WORKER_ENGINE_ENGINE_PICTURE_H_

#include <cstdint>
#include <string>
#include <vector>

namespace tidepool {

// Rows of all kv heads of a layer that are on the device.
struct LayerPicture {
  int64_t kept = 0;      // by the policy
  int64_t recalled = 0;  // brought back
};

struct SequencePicture {
  uint64_t id = 0;
  std::string request_id, tenant, preset;
  const char* phase = "";  // waiting, prefill, decode, storing
  int64_t tokens = 0;      // of the whole context
  int64_t computed = 0;    // of those, whose keys and values exist
  int64_t generated = 0;
  int64_t rows = 0;  // of one layer, if nothing had been evicted
  std::vector<LayerPicture> layers;
};

struct EnginePicture {
  std::vector<SequencePicture> sequences;
  int64_t idle_sessions = 0;  // on the device between their turns
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_ENGINE_ENGINE_PICTURE_H_
