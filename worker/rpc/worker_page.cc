#include "worker/rpc/worker_page.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/listen_address.h"
#include "worker/engine/engine.h"
#include "worker/model/model.h"

namespace tidepool {

extern const char kWorkerPageHtml[];  // worker_page.html

namespace {

using Json = nlohmann::ordered_json;

Json SequenceJson(const SequencePicture& sequence) {
  Json layers = Json::array();
  for (const LayerPicture& layer : sequence.layers) layers.push_back({layer.kept, layer.recalled});
  return {{"id", sequence.id},
          {"request_id", sequence.request_id},
          {"tenant", sequence.tenant},
          {"preset", sequence.preset},
          {"phase", sequence.phase},
          {"tokens", sequence.tokens},
          {"computed", sequence.computed},
          {"generated", sequence.generated},
          {"rows", sequence.rows},
          {"layers", layers}};
}

Json TiersJson(const EngineStats& stats) {
  Json pods = Json::array();
  for (const CachePodStats& pod : stats.cache.pods) {
    pods.push_back({{"name", pod.name}, {"weight", pod.weight}, {"down", pod.state == CachePodStats::State::kDown}});
  }
  return {{"device_used_bytes", stats.used_pages * stats.page_bytes},
          {"device_bytes", stats.total_pages * stats.page_bytes},
          {"offloaded_bytes", stats.cache.offloaded_bytes},
          {"recalled_bytes", stats.cache.recalled_bytes},
          {"fetched_bytes", stats.cache.fetched_bytes},
          {"pods", pods}};
}

std::string PictureJson(Engine& engine) {
  const EngineStats stats = engine.Stats();
  const EnginePicture picture = engine.Picture();
  Json sequences = Json::array();
  for (const SequencePicture& sequence : picture.sequences) sequences.push_back(SequenceJson(sequence));
  const Json json = {
      {"time_seconds", absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch())},
      {"model", engine.model().config().name},
      {"running", stats.running_sequences},
      {"waiting", stats.waiting_requests},
      {"idle_sessions", picture.idle_sessions},
      {"prompt_tokens", stats.prompt_tokens},
      {"generated_tokens", stats.generated_tokens},
      {"looked_up_tokens", stats.looked_up_tokens},
      {"hits",
       {{"resident", stats.resident_tokens}, {"session", stats.restored_tokens}, {"prefix", stats.prefix_tokens}}},
      {"evicted_rows", stats.evicted_rows},
      {"recalled_rows", stats.recalled_rows},
      {"late_rows", stats.late_rows},
      {"lost_rows", stats.lost_rows},
      {"tiers", TiersJson(stats)},
      {"sequences", sequences}};
  return json.dump(/*indent=*/-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
}

}  // namespace

absl::Status CheckPageAddress(const std::string& address) {
  if (address.empty()) return absl::OkStatus();
  if (address.rfind("unix:", 0) != 0 && CheckListenAddress(address, /*insecure=*/false).ok()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("page_address: '", address, "' is not a loopback address, host:port with a port of 0 to 65535"));
}

std::map<std::string, Page> WorkerPages(Engine* engine) {
  return {{"/", {"text/html; charset=utf-8", [] { return std::string(kWorkerPageHtml); }}},
          {"/picture.json", {"application/json", [engine] { return PictureJson(*engine); }}}};
}

}  // namespace tidepool
