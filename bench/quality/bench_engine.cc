#include "bench/quality/bench_engine.h"

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/mutex.h"
#include "bench/quality/or_die.h"
#include "worker/backend/backend.h"
#include "worker/kv/device_shape.h"

namespace tidepool::quality {
namespace {

absl::Time Soon() { return absl::Now() + absl::Seconds(60); }

}  // namespace

std::string ModelFile(const std::string& name) {
  const char* directory = std::getenv("TIDEPOOL_MODEL_DIR");
  return absl::StrCat(directory != nullptr ? directory : TIDEPOOL_SOURCE_DIR "/models", "/", name);
}

BenchEngine::BenchEngine(const std::string& model_path, int threads) : model_(OrDie(Model::Load(model_path))) {
  directory_ = (std::filesystem::temp_directory_path() / "tidepool-quality-XXXXXX").string();
  if (mkdtemp(directory_.data()) == nullptr) Die("cannot make " + directory_);
  CacheOptions options;
  options.data_dir = directory_;
  cache_ = OrDie(EmbeddedCache::Open(options, LayoutOf(*model_, KvType::kF16)));
  EngineOptions engine_options;
  engine_options.threads = threads;
  engine_ = OrDie(Engine::Create(engine_options, model_, cache_.get(), cache_->manifests()));
}

BenchEngine::~BenchEngine() {
  engine_.reset();
  cache_.reset();
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

Setting BenchEngine::Placed(Setting setting, int64_t tokens) const {
  if (setting.index_at != IndexAt::kFit || setting.spec.recall.mode == RecallMode::kOff) return setting;
  CompressionSpec on_device = setting.spec;
  on_device.recall.placement = IndexPlacement::kDevice;
  const DeviceShape shape = DeviceShapeOf(LayoutOf(*model_, KvType::kF16), on_device);
  if (CheckBudget(on_device, shape, tokens).ok()) setting.spec = on_device;
  return setting;
}

test::Answer BenchEngine::Run(const GenerationRequest& request, absl::Duration pace) {
  auto sink = std::make_shared<test::Collector>();
  if (pace > absl::ZeroDuration()) sink->set_on_token([pace](int) { absl::SleepFor(pace); });
  OrDie(engine_->Submit(request, sink).status());
  test::Answer answer;
  answer.result = sink->Wait();
  OrDie(answer.result.status);
  answer.tokens = sink->tokens();
  answer.logprobs = sink->logprobs();
  return answer;
}

SessionManifest BenchEngine::Compress(const std::vector<int32_t>& context, const CompressionSpec& spec) {
  GenerationRequest request;
  request.session_id = absl::StrCat("context-", sessions_++);
  request.prompt = context;
  request.compression = spec;
  // A policy that acts at the first decoding step needs one: that of the first generated token, before the second.
  request.stop.max_tokens = spec.schedule == Schedule::kFirstStep ? 2 : 0;
  request.stop.ignore_eos = true;
  Run(request);
  std::optional<SessionManifest> manifest = OrDie(cache_->manifests()->Get("default", request.session_id, Soon()));
  if (!manifest.has_value()) Die("the context's session was not stored");
  return *std::move(manifest);
}

test::Answer BenchEngine::Continue(const SessionManifest& context, GenerationRequest next, absl::Duration pace) {
  SessionManifest copy = context;
  copy.session_id = absl::StrCat(context.session_id, "-", sessions_++);
  copy.revision = 1;
  OrDie(cache_->manifests()->Put(copy, Soon()));
  next.session_id = copy.session_id;
  test::Answer answer = Run(next, pace);
  Forget(copy.session_id);
  return answer;
}

void BenchEngine::Forget(const std::string& session_id) {
  Mutex mutex;  // not absl's notification, which the thread sanitizer does not see through
  CondVar ended;
  std::optional<absl::Status> status;
  engine_->EndSession({session_id}, [&](absl::Status result) {
    MutexLock lock(&mutex);
    status = std::move(result);
    ended.SignalAll();
  });
  MutexLock lock(&mutex);
  while (!status.has_value()) ended.Wait(&mutex);
  OrDie(*status);
}

}  // namespace tidepool::quality
