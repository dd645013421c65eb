#include "cacheservice/wire/messages.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/checksum.h"
#include "base/limits.h"
#include "base/status_macros.h"

namespace tidepool {
namespace {

absl::Status InRange(const char* field, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, ": ", value, " is not in ", low, " to ", high));
}

}  // namespace

v1::StreamHello AnyShapeHelloOf(std::string_view tenant) {
  v1::StreamHello hello;
  hello.set_protocol(kCacheProtocol);
  hello.set_tenant(std::string(tenant));
  hello.set_any_shape(true);
  return hello;
}

v1::StreamHello HelloOf(std::string_view tenant, const KvLayout& layout) {
  v1::StreamHello hello;
  hello.set_protocol(kCacheProtocol);
  hello.set_tenant(std::string(tenant));
  v1::KvShape& shape = *hello.mutable_shape();
  shape.set_model_fingerprint(layout.model_fingerprint);
  shape.set_layers(layout.layers);
  shape.set_kv_heads(layout.kv_heads);
  shape.set_head_dim(layout.head_dim);
  shape.set_type(layout.type == KvType::kF16 ? v1::KV_ELEMENT_TYPE_F16 : v1::KV_ELEMENT_TYPE_F32);
  return hello;
}

absl::Status CheckHello(const v1::StreamHello& hello) {
  if (hello.protocol() != kCacheProtocol) {
    return absl::FailedPreconditionError(
        absl::StrCat("hello.protocol: ", hello.protocol(), ", this service speaks ", kCacheProtocol));
  }
  return InRange("hello.tenant size", static_cast<int64_t>(hello.tenant().size()), 1, kMaxTenantBytes);
}

absl::StatusOr<KvLayout> LayoutOfHello(const v1::StreamHello& hello) {
  TP_RETURN_IF_ERROR(CheckHello(hello));
  const v1::KvShape& shape = hello.shape();
  TP_RETURN_IF_ERROR(
      InRange("hello.shape.model_fingerprint size", static_cast<int64_t>(shape.model_fingerprint().size()), 1, 128));
  TP_RETURN_IF_ERROR(InRange("hello.shape.layers", shape.layers(), 1, 1024));
  TP_RETURN_IF_ERROR(InRange("hello.shape.kv_heads", shape.kv_heads(), 1, 1024));
  TP_RETURN_IF_ERROR(InRange("hello.shape.head_dim", shape.head_dim(), 1, 1024));
  if (shape.type() != v1::KV_ELEMENT_TYPE_F16 && shape.type() != v1::KV_ELEMENT_TYPE_F32) {
    return absl::InvalidArgumentError(
        absl::StrCat("hello.shape.type: ", static_cast<int>(shape.type()), " is not known"));
  }
  KvLayout layout;
  layout.model_fingerprint = shape.model_fingerprint();
  layout.layers = shape.layers();
  layout.kv_heads = shape.kv_heads();
  layout.head_dim = shape.head_dim();
  layout.type = shape.type() == v1::KV_ELEMENT_TYPE_F16 ? KvType::kF16 : KvType::kF32;
  return layout;
}

absl::Status SameLayout(const KvLayout& known, const KvLayout& given) {
  auto differs = [](const char* field, auto here, auto there) {
    return absl::FailedPreconditionError(
        absl::StrCat("hello.shape.", field, ": ", there, ", this model's blocks here have ", here));
  };
  if (known.layers != given.layers) return differs("layers", known.layers, given.layers);
  if (known.kv_heads != given.kv_heads) return differs("kv_heads", known.kv_heads, given.kv_heads);
  if (known.head_dim != given.head_dim) return differs("head_dim", known.head_dim, given.head_dim);
  return absl::OkStatus();
}

v1::BlockRef RefOf(const BlockId& id) {
  v1::BlockRef ref;
  SetRef(id, &ref);
  return ref;
}

void SetRef(const BlockId& id, v1::BlockRef* ref) {
  const std::string_view key = id.key.AsString();
  ref->set_key(key.data(), key.size());
  ref->set_layer(id.layer);
}

absl::StatusOr<BlockId> BlockOf(const v1::BlockRef& ref) {
  BlockId id;
  if (ref.key().size() != id.key.bytes.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("block.key: ", ref.key().size(), " bytes, ", id.key.bytes.size(), " are needed"));
  }
  TP_RETURN_IF_ERROR(InRange("block.layer", ref.layer(), 0, 1023));
  std::memcpy(id.key.bytes.data(), ref.key().data(), ref.key().size());
  id.layer = ref.layer();
  return id;
}

absl::StatusOr<BlockKey> ParentOf(const v1::BlockFrame& frame) {
  BlockKey parent;
  if (!frame.parent_key().empty() && frame.parent_key().size() != parent.bytes.size()) {
    return absl::InvalidArgumentError(absl::StrCat("frame.parent_key: ", frame.parent_key().size(), " bytes, ",
                                                   parent.bytes.size(), " or none are needed"));
  }
  std::copy(frame.parent_key().begin(), frame.parent_key().end(), parent.bytes.begin());
  return parent;
}

absl::StatusOr<std::string> TenantOfFrame(const v1::BlockFrame& frame, const std::string& tenant_of_hello) {
  if (frame.tenant().size() > kMaxTenantBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("frame.tenant: ", frame.tenant().size(), " characters, at most ", kMaxTenantBytes));
  }
  return frame.tenant().empty() ? tenant_of_hello : frame.tenant();
}

absl::StatusOr<RowSelection> SelectionOf(const v1::RowSelectionRef& ref) {
  RowSelection selection;
  TP_ASSIGN_OR_RETURN(selection.block, BlockOf(ref.block()));
  TP_RETURN_IF_ERROR(InRange("kv_head", ref.kv_head(), 0, 1023));
  selection.kv_head = ref.kv_head();
  selection.row_mask = ref.row_mask();
  return selection;
}

size_t FrameBytesFor(size_t value_bytes) {
  const size_t frames = std::max<size_t>(1, (value_bytes + kMaxFrameBytes - 1) / kMaxFrameBytes);
  return std::max<size_t>(1, (value_bytes + frames - 1) / frames);
}

absl::Status CheckFrame(std::string_view field, std::string_view payload, std::optional<uint32_t> checksum) {
  if (payload.size() > kMaxFrameBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(std::string(field), ".payload: ", payload.size(), " bytes, at most ", kMaxFrameBytes));
  }
  if (checksum.has_value() && Checksum32(payload) != *checksum)
    return absl::DataLossError(absl::StrCat(std::string(field), ".checksum: differs from the payload's"));
  return absl::OkStatus();
}

}  // namespace tidepool
