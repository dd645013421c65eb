// The engine: continuous batching of many sequences over one model on one backend, with compressed KV and recall.
// One engine thread owns model, pages and sequences; everything else reaches it through Submit and Cancel.
//
//   auto engine = Engine::Create(options, model, cache, manifests);
//   engine->Submit(request, sink);   // sink->OnTokens ... then exactly one sink->OnFinished
#ifndef TIDEPOOL_WORKER_ENGINE_ENGINE_H_
#define TIDEPOOL_WORKER_ENGINE_ENGINE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cacheservice/api/block_cache.h"
#include "cacheservice/api/manifest_store.h"
#include "policies/kv/block_key.h"
#include "policies/retain/compression_spec.h"
#include "worker/engine/engine_picture.h"
#include "worker/engine/engine_stats.h"
#include "worker/engine/load_cost.h"
#include "worker/engine/sampling_params.h"
#include "worker/engine/session_name.h"

namespace tidepool {

class Model;              // worker/model/model.h
class RetentionObserver;  // worker/kv/retention_observer.h

struct EngineOptions {
  std::string device = "cpu";  // as CreateBackend
  int threads = 2;             // of the host
  int prefill_chunk_tokens = 256;
  double decode_pace = 2.5;                  // as StepPace: 0, or 1.1 to 100
  size_t device_kv_bytes = size_t{1} << 30;  // slot pool: all resident keys and values
  double device_memory = 0;                  // not 0: in its place, as BackendOptions
  int max_active_sequences = 32;             // 1 to kMaxActiveSequences
  KvType kv_type = KvType::kF16;
  bool f32_weights = false;        // weights dequantised to float32 (debugging, reference tests)
  std::string tenant = "default";  // of requests that name none
  std::string tenant_salt;         // secret that keys its blocks, and those of others as SaltOfTenant
  absl::Duration cache_deadline = absl::Seconds(20);  // to load or store what a request needs
  bool weigh_prefixes = true;  // a stored prefix that takes longer to load than to compute is computed (LoadCost)
  absl::Duration recall_deadline = absl::Seconds(10);  // for all that one step waits for in synchronous recall
};

// What can be said without a model. InvalidArgument naming the option, its value and its range.
absl::Status ValidateEngineOptions(const EngineOptions& options);

struct GenerationRequest {
  std::string request_id;       // for logs
  std::string tenant;           // whose blocks and sessions it sees; empty: EngineOptions::tenant
  std::vector<int32_t> prompt;  // token ids, each < vocabulary; with session_id the tokens of this turn only
  // Instead of the prompt when the session has tokens already: a chat template writes its beginning only once. It
  // begins with the token that ends an answer, which is left out when it is the session's last token. Empty: the
  // prompt.
  std::vector<int32_t> continuation;
  SamplingParams sampling;
  StopParams stop;
  int logprobs = -1;            // alternatives per generated token; -1: none at all
  std::string session_id;       // empty: nothing is kept
  CompressionSpec compression;  // of a resumed session: must equal the stored one, or have preset empty
  bool reuse_prefix = true;     // look stored prefixes up
  int64_t session_turns = -1;   // that the session must have before this one, else Aborted; -1: any
  // Score: these tokens are fed instead of sampled ones, and their log-probabilities reported. max_tokens is their
  // count.
  std::vector<int32_t> forced_tokens;
  absl::Time deadline = absl::InfiniteFuture();
  std::shared_ptr<RetentionObserver> observer;  // sees what of the sequence stays, while the request runs; null: none
};

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0;                           // natural log of the softmax over the whole vocabulary, before penalties
  std::vector<std::pair<int32_t, float>> top;  // best alternatives, descending
};

// What became available since the last one: text ends on a UTF-8 boundary and never holds part of a stop string.
struct TokenDelta {
  std::vector<int32_t> tokens;
  std::string text;
  std::vector<TokenLogprob> logprobs;  // one per token when asked for
};

struct GenerationUsage {
  int64_t prompt_tokens = 0;
  int64_t cached_prompt_tokens = 0;  // not recomputed: stored prefix or resumed session
  int64_t slow_prompt_tokens = 0;    // stored, and computed all the same: loading them would have taken longer
  int64_t generated_tokens = 0;
  int64_t context_tokens = 0;  // all tokens whose KV exists somewhere
  int64_t resident_rows = 0;   // (layer, kv head, token) rows on the device at the end, recall slots included
  int64_t evicted_rows = 0, merged_rows = 0, recalled_rows = 0, late_rows = 0, lost_rows = 0;
  int64_t recalled_bytes = 0, offloaded_bytes = 0;
  int64_t resident_kv_bytes = 0;  // slot pages held at the end
  int64_t peak_kv_bytes = 0;      // slot pages, highest during the request
  int64_t index_bytes = 0;        // recall index, where it lies
  int64_t staged_bytes = 0;       // rows kept ready in host memory at the end
  bool index_on_device = false;
  int64_t decode_peak_kv_bytes = 0;  // slot pages, highest while decoding
  int64_t budget_bytes = 0;          // the device budget at the end; 0: none
  bool budget_exceeded = false;      // held, but what the policy never gives up was more than the budget for a while
  int64_t full_kv_bytes = 0;         // what an uncompressed cache of context_tokens would hold
  double queue_seconds = 0, time_to_first_token_seconds = 0, total_seconds = 0;
  bool degraded = false;   // rows were lost and the answer was computed without them
  int recomputations = 0;  // of the whole context, since rows were lost; the counts of rows are those of the last
};

// When a request came to what; InfinitePast: it did not.
struct RequestTimeline {
  absl::Time arrived = absl::InfinitePast(), ended = absl::InfinitePast();
  // What its session has, or a stored prefix, was asked for and had come.
  absl::Time lookup_began = absl::InfinitePast(), lookup_ended = absl::InfinitePast();
  absl::Time started = absl::InfinitePast();  // its pages were free
  absl::Time first_token = absl::InfinitePast(), last_token = absl::InfinitePast();
  absl::Time first_recall = absl::InfinitePast(), last_recall = absl::InfinitePast();  // steps that recall rows
  absl::Time store_began = absl::InfinitePast();  // of a session: what of it is not durable yet is waited for
};

struct GenerationResult {
  absl::Status status;  // not OK: the request failed, the rest is what is known
  FinishReason reason = FinishReason::kStop;
  std::string stop_string;  // which one, when one ended it
  GenerationUsage usage;
  int64_t session_turns = 0;  // that the session has now; 0: there is none
  RequestTimeline timeline;
  std::string preset;  // of its compression, once it has started
};

// What a request would find, and how busy the engine is.
struct RequestEstimate {
  int64_t prompt_tokens = 0;        // with a session the whole context before the answer
  int64_t stored_tokens = 0;        // of those: the session's, or a stored prefix
  int64_t session_turns = 0;        // 0: the session is new, or there is none
  int64_t waiting_tokens = 0;       // of the prompts of all requests that it has
  double prompt_token_seconds = 0;  // to compute one, on average; 0: not seen yet
  int64_t running_sequences = 0, waiting_requests = 0;
};

// Called from the engine thread; must not block. OnFinished is called exactly once, last.
class GenerationSink {
 public:
  virtual ~GenerationSink() = default;
  virtual void OnProgress(int64_t prefilled_tokens, int64_t prompt_tokens) {}
  virtual void OnTokens(TokenDelta delta) = 0;
  virtual void OnFinished(GenerationResult result) = 0;
};

class Engine {
 public:
  // `cache` and `manifests` may be null: then recall and sessions are refused and prefixes are not reused.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(EngineOptions options, std::shared_ptr<const Model> model,
                                                        BlockCache* cache, ManifestStore* manifests);
  virtual ~Engine() = default;

  // InvalidArgument naming the field; ResourceExhausted when the queue is full. On OK the sink is kept until
  // OnFinished. Returns a number for Cancel.
  virtual absl::StatusOr<uint64_t> Submit(GenerationRequest request, std::shared_ptr<GenerationSink> sink) = 0;
  // The pages are free at the next step. OnFinished(kCancelled) follows. Unknown numbers are ignored.
  virtual void Cancel(uint64_t request) = 0;
  // Forgets the session when its turn under way, if there is one, has ended. `done` is called once, from any thread; OK
  // also when there is no such session. InvalidArgument, FailedPrecondition without a manifest store, Unavailable.
  virtual void EndSession(SessionName session, std::function<void(absl::Status)> done) = 0;
  // Runs nothing. `done` is called once, from any thread. A request with neither prompt nor session is only about how
  // busy the engine is. InvalidArgument, ResourceExhausted (too many of these at once), Unavailable (of a session: the
  // cache service does not answer within the request's deadline).
  virtual void Estimate(GenerationRequest request, std::function<void(absl::StatusOr<RequestEstimate>)> done) = 0;
  virtual EngineStats Stats() const = 0;
  // Under which keys a prompt's blocks are looked for. InvalidArgument naming the field.
  struct PromptKeys {
    std::string tenant;
    std::vector<BlockKey> keys;  // of all full blocks
    int usable_blocks = 0;       // leading ones that a request of this compression may build on
    LoadCost::Expectation cost;  // of those
  };
  virtual absl::StatusOr<PromptKeys> KeysOf(const GenerationRequest& request) const = 0;
  // As it was at the end of a step since this was asked last; who asks each second sees it a second late at most.
  virtual EnginePicture Picture() = 0;
  virtual const Model& model() const = 0;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_ENGINE_ENGINE_H_
