#include "worker/engine/engine_picture.h"

#include "worker/engine/engine_loop.h"

namespace tidepool {
namespace {

const char* PhaseName(Generation::Phase phase) {
  switch (phase) {
    case Generation::Phase::kWaiting:
    case Generation::Phase::kLoading:
    case Generation::Phase::kLoaded: return "waiting";
    case Generation::Phase::kPrefill: return "prefill";
    case Generation::Phase::kDecode: return "decode";
    case Generation::Phase::kStoring: return "storing";
    case Generation::Phase::kDone: break;
  }
  return "done";
}

SequencePicture PictureOf(Generation& generation) {
  SequencePicture picture;
  picture.id = generation.id();
  picture.request_id = generation.request().request_id;
  picture.tenant = generation.request().tenant;
  picture.preset = generation.request().compression.preset;
  picture.phase = PhaseName(generation.phase);
  picture.generated = generation.usage.generated_tokens;
  picture.tokens = static_cast<int64_t>(generation.request().prompt.size());
  const Context* context = generation.context();
  if (context == nullptr) return picture;
  const SequenceRows& rows = context->rows();
  picture.tokens = static_cast<int64_t>(context->token_ids().size());
  picture.computed = context->computed();
  picture.rows = picture.computed * rows.kv_heads();
  for (int layer = 0; layer < rows.layers(); ++layer) {
    LayerPicture& of_layer = picture.layers.emplace_back();
    for (int kv_head = 0; kv_head < rows.kv_heads(); ++kv_head) {
      const HeadRows& head = rows.head(layer, kv_head);
      of_layer.recalled += head.recalled_rows();
      of_layer.kept += head.rows() - head.recalled_rows();
    }
  }
  return picture;
}

}  // namespace

EnginePicture EngineLoop::Picture() {
  MutexLock lock(&mutex_);
  picture_wanted_ = true;
  woken_ = true;
  wake_.Signal();
  return picture_;
}

void EngineLoop::TakePicture() {
  {
    MutexLock lock(&mutex_);
    if (!picture_wanted_) return;
    picture_wanted_ = false;
  }
  EnginePicture picture;
  for (const std::unique_ptr<Generation>& generation : active_) picture.sequences.push_back(PictureOf(*generation));
  for (const std::unique_ptr<Generation>& generation : waiting_) picture.sequences.push_back(PictureOf(*generation));
  picture.idle_sessions = static_cast<int64_t>(idle_.size());
  MutexLock lock(&mutex_);
  picture_ = std::move(picture);
}

}  // namespace tidepool
