// An engine with a cache of its own, in this process and in a directory that goes with it. A context is computed and
// compressed once; every question then goes on from a copy of its session, as if it were the only one.
//
//   BenchEngine engine(ModelFile("lookup.gguf"), 2);
//   const SessionManifest context = engine.Compress(tokens, spec);
//   test::Answer answer = engine.Continue(context, request);   // request.prompt: the next turn
#ifndef TIDEPOOL_BENCH_QUALITY_BENCH_ENGINE_H_
#define TIDEPOOL_BENCH_QUALITY_BENCH_ENGINE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "bench/quality/setting.h"
#include "cacheservice/embedded/embedded_cache.h"
#include "tests/support/collector.h"
#include "worker/engine/engine.h"
#include "worker/model/model.h"

namespace tidepool::quality {

// In TIDEPOOL_MODEL_DIR, else in models/.
std::string ModelFile(const std::string& name);

class BenchEngine {
 public:
  BenchEngine(const std::string& model_path, int threads);
  ~BenchEngine();
  BenchEngine(const BenchEngine&) = delete;
  BenchEngine& operator=(const BenchEngine&) = delete;

  // `setting` with its index where a context of `tokens` tokens has it.
  Setting Placed(Setting setting, int64_t tokens) const;

  const Tokenizer& tokenizer() const { return model_->tokenizer(); }

  // A request of its own. pace: the engine rests so long after each token, as if the model were slower.
  // Ends the program when the request fails.
  test::Answer Run(const GenerationRequest& request, absl::Duration pace = absl::ZeroDuration());
  // A finished turn, compressed at its end and stored; no answer, but two tokens where the policy needs a decoding
  // step. Forget ends it.
  SessionManifest Compress(const std::vector<int32_t>& context, const CompressionSpec& spec);
  // Runs `next` (its session_id is not used) on a copy of the session, which is forgotten afterwards.
  test::Answer Continue(const SessionManifest& context, GenerationRequest next,
                        absl::Duration pace = absl::ZeroDuration());
  void Forget(const std::string& session_id);

 private:
  std::string directory_;
  std::shared_ptr<const Model> model_;
  std::unique_ptr<EmbeddedCache> cache_;
  std::unique_ptr<Engine> engine_;
  int64_t sessions_ = 0;
};

}  // namespace tidepool::quality

#endif  // TIDEPOOL_BENCH_QUALITY_BENCH_ENGINE_H_
