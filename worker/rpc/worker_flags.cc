#include "worker/rpc/worker_flags.h"

#include <fstream>
#include <iterator>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "base/byte_size.h"
#include "base/limits.h"
#include "base/status_macros.h"
#include "metrics/metrics_server.h"
#include "security/rpc/server_flags.h"
#include "worker/rpc/worker_page.h"

ABSL_FLAG(std::string, model, "", "GGUF file of the model. Required");
ABSL_FLAG(
    std::string, device, "cpu",
    "where the model runs: cpu; cuda or cuda:N, a GPU (of a build with CUDA); emulated, the CUDA kernels on the host, "
    "slowly");
ABSL_FLAG(int, threads, 2, "compute threads of the host: 1 to 256");
ABSL_FLAG(std::string, device_kv_bytes, "1GiB", "memory of all slot pages: resident keys and values");
ABSL_FLAG(
    double, device_memory, 0,
    "0.1 to 0.95: in place of --device-kv-bytes, this share of what is free on the GPU once the weights are there");
ABSL_FLAG(int, max_sequences, 32, "sequences worked on at a time: 1 to 64");
ABSL_FLAG(int, prefill_chunk, 0, "prompt tokens of one step: 1 to 8192; 0: 256, and 2048 on a GPU");
ABSL_FLAG(double, decode_pace, 2.5,
          "while answers are being generated, so few prompt tokens in a step, but 2, that it takes about so many times "
          "as long as one without: 1.1 to 100; 0: however long it takes, prompts are read sooner");
ABSL_FLAG(bool, weigh_prefixes, true,
          "compute a stored prefix that would take longer to load, and try loading again from time to time");
ABSL_FLAG(std::string, kv_type, "f16", "element type of keys and values: f16 or f32");
ABSL_FLAG(bool, f32_weights, false, "dequantise all weights to float32 (debugging)");
ABSL_FLAG(
    std::string, tenant, "",
    "whose sessions and blocks: for a worker, of requests by callers that have none of their own (--access-file); "
    "empty: the caller's own, or default");
ABSL_FLAG(std::string, tenant_salt_file, "",
          "file whose bytes key the blocks of all tenants, each apart: without them nobody can find or probe them");
ABSL_FLAG(std::string, policies, "",
          "JSON file of named combinations of policy stages, offered beside the presets: docs/policies.md");
ABSL_FLAG(std::string, metrics_address, "",
          "host:port of GET /metrics for Prometheus, plain HTTP (port 0: any free one); empty: none");
ABSL_FLAG(bool, metrics_insecure, false,
          "--metrics-address may be one that other machines reach: whoever does may read the metrics");
ABSL_FLAG(std::string, page_address, "",
          "loopback host:port of a web page that shows what the worker does (port 0: any free one); empty: none");
ABSL_FLAG(
    std::string, otlp_endpoint, "",
    "where traces of requests go: a collector's OTLP over plain HTTP, http://HOST:PORT, 4318 and /v1/traces unless "
    "given; empty: none are made");
ABSL_FLAG(double, trace_share, 1,
          "0 to 1: this share of the calls that come without a traceparent is traced, too, by --otlp-endpoint");
ABSL_FLAG(int, drain_time, 5,
          "seconds that requests may go on after SIGTERM or SIGINT before they are cancelled: 0 to 86400");
ABSL_FLAG(std::string, flags_file, "", "file of flags, one --name=value a line, # begins a comment; later flags win");
ABSL_FLAG(bool, validate_config, false,
          "check the flags, and the files of flags, policies, salt, certificates and access that they name, and exit: "
          "0, or 2 with what is wrong");
ABSL_FLAG(std::string, port_file, "", "file that gets the port, in decimal, when the service listens");

namespace tidepool {

absl::StatusOr<EngineOptions> EngineOptionsFromFlags() {
  TP_RETURN_IF_ERROR(CheckMetricsAddress(absl::GetFlag(FLAGS_metrics_address),
                                         absl::GetFlag(FLAGS_metrics_insecure) || ServerSecurityFromFlags().insecure));
  TP_RETURN_IF_ERROR(CheckPageAddress(absl::GetFlag(FLAGS_page_address)));
  if (const int seconds = absl::GetFlag(FLAGS_drain_time); seconds < 0 || seconds > 86'400) {
    return absl::InvalidArgumentError(absl::StrCat("--drain-time: ", seconds, " is not in 0 to 86400"));
  }
  EngineOptions options;
  options.device = absl::GetFlag(FLAGS_device);
  options.threads = absl::GetFlag(FLAGS_threads);
  const std::string bytes = absl::GetFlag(FLAGS_device_kv_bytes);
  const std::optional<uint64_t> kv_bytes = ParseByteSize(bytes);
  if (!kv_bytes.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat("--device-kv-bytes: '", bytes, "' is not a size such as 512MiB"));
  }
  options.device_kv_bytes = *kv_bytes;
  options.device_memory = absl::GetFlag(FLAGS_device_memory);
  options.max_active_sequences = absl::GetFlag(FLAGS_max_sequences);
  options.prefill_chunk_tokens = absl::GetFlag(FLAGS_prefill_chunk);
  options.decode_pace = absl::GetFlag(FLAGS_decode_pace);
  options.weigh_prefixes = absl::GetFlag(FLAGS_weigh_prefixes);
  if (options.prefill_chunk_tokens == 0) options.prefill_chunk_tokens = options.device.starts_with("cuda") ? 2048 : 256;
  const std::string type = absl::GetFlag(FLAGS_kv_type);
  if (type != "f16" && type != "f32")
    return absl::InvalidArgumentError(absl::StrCat("--kv-type: '", type, "' is not f16 or f32"));
  options.kv_type = type == "f16" ? KvType::kF16 : KvType::kF32;
  options.f32_weights = absl::GetFlag(FLAGS_f32_weights);
  if (const std::string tenant = absl::GetFlag(FLAGS_tenant); !tenant.empty()) options.tenant = tenant;
  if (options.tenant.size() > kMaxTenantBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("--tenant: ", options.tenant.size(), " characters, at most ", kMaxTenantBytes, " are allowed"));
  }
  if (const std::string file = absl::GetFlag(FLAGS_tenant_salt_file); !file.empty()) {
    std::ifstream in(file, std::ios::binary);
    options.tenant_salt.assign(std::istreambuf_iterator<char>(in), {});
    if (!in.good() && !in.eof())
      return absl::InvalidArgumentError(absl::StrCat("--tenant-salt-file: cannot read ", file));
    if (options.tenant_salt.empty())
      return absl::InvalidArgumentError(absl::StrCat("--tenant-salt-file: ", file, " is empty or cannot be read"));
  }
  TP_RETURN_IF_ERROR(ValidateEngineOptions(options));
  return options;
}

absl::StatusOr<NamedPolicies> PoliciesFromFlags() {
  const std::string file = absl::GetFlag(FLAGS_policies);
  if (file.empty()) return NamedPolicies();
  absl::StatusOr<NamedPolicies> policies = NamedPolicies::Read(file);
  if (policies.ok()) return policies;
  return absl::InvalidArgumentError(absl::StrCat("--policies: ", policies.status().message()));
}

absl::StatusOr<std::optional<OtlpEndpoint>> OtlpEndpointFromFlags() {
  const double share = absl::GetFlag(FLAGS_trace_share);
  if (!(share >= 0 && share <= 1)) {
    return absl::InvalidArgumentError(absl::StrCat("--trace-share: ", share, " is not in 0 to 1"));
  }
  const std::string url = absl::GetFlag(FLAGS_otlp_endpoint);
  if (url.empty()) return std::nullopt;
  absl::StatusOr<OtlpEndpoint> endpoint = OtlpEndpoint::Parse(url);
  if (!endpoint.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--otlp-endpoint: ", endpoint.status().message()));
  }
  return *std::move(endpoint);
}

double TraceShareFlag() { return absl::GetFlag(FLAGS_trace_share); }
std::string ModelFlag() { return absl::GetFlag(FLAGS_model); }
std::string PageAddressFlag() { return absl::GetFlag(FLAGS_page_address); }
std::string MetricsAddressFlag() { return absl::GetFlag(FLAGS_metrics_address); }
absl::Duration DrainTimeFlag() { return absl::Seconds(absl::GetFlag(FLAGS_drain_time)); }
bool ValidateConfigFlag() { return absl::GetFlag(FLAGS_validate_config); }
std::string PortFileFlag() { return absl::GetFlag(FLAGS_port_file); }

}  // namespace tidepool
