#include "cacheservice/wire/payload_message.h"

#include <google/protobuf/message_lite.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace tidepool {
namespace {

// Protobuf's wire format: a tag (field number << 3 | type) before each field.
enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };
constexpr uint32_t kTypeBits = 3;
constexpr size_t kMostVarintBytes = 10;

uint32_t TagOf(int field, WireType type) { return static_cast<uint32_t>(field) << kTypeBits | type; }

void AppendVarint(uint64_t value, std::string* out) {
  for (; value >= 0x80; value >>= 7) out->push_back(static_cast<char>(value | 0x80));
  out->push_back(static_cast<char>(value));
}

}  // namespace

grpc::Slice SharedSlice(const std::shared_ptr<const std::string>& owner, size_t offset, size_t size) {
  TIDEPOOL_CHECK(offset <= owner->size() && size <= owner->size() - offset);
  using Owner = std::shared_ptr<const std::string>;
  return grpc::Slice(
      const_cast<char*>(owner->data()) + offset, size, [](void* held) { delete static_cast<Owner*>(held); },
      new Owner(owner));
}

grpc::ByteBuffer WithPayload(const google::protobuf::MessageLite& message, PayloadPlace place,
                             const grpc::Slice& payload) {
  std::string fields;
  TIDEPOOL_CHECK(message.AppendToString(&fields));
  if (payload.size() > 0) {
    AppendVarint(TagOf(place.field, kBytes), &fields);
    AppendVarint(payload.size(), &fields);
  }
  std::string head;
  if (place.inner != 0) {
    AppendVarint(TagOf(place.inner, kBytes), &head);
    AppendVarint(fields.size() + payload.size(), &head);
  }
  head += fields;
  const grpc::Slice slices[] = {grpc::Slice(head), payload};
  return grpc::ByteBuffer(slices, payload.size() > 0 ? 2 : 1);
}

void Payload::AppendTo(std::string* bytes) const {
  bytes->reserve(bytes->size() + size_);
  for (const std::string_view part : parts_) bytes->append(part);
}

// Goes over a message's bytes and gathers all fields but the payload in a string, which protobuf then parses.
class PayloadParser {
 public:
  PayloadParser(PayloadPlace place, Payload* payload) : place_(place), payload_(payload) {}

  bool Split(grpc::ByteBuffer* bytes, std::string* rest) {
    *payload_ = Payload();
    const bool dumped = bytes->Dump(&payload_->slices_).ok();
    bytes->Clear();
    for (const grpc::Slice& slice : payload_->slices_) left_ += slice.size();
    return dumped && Fields(left_, rest, /*outer=*/place_.inner != 0);
  }

 private:
  // The fields of a message of so many bytes. `outer`: it has the payload's message as a field.
  bool Fields(size_t bytes, std::string* rest, bool outer) {
    if (bytes > left_) return false;
    const size_t end = left_ - bytes;
    while (left_ > end) {
      uint64_t tag = 0;
      if (!Varint(&tag)) return false;
      if (outer && place_.instead != 0 && tag == TagOf(place_.instead, kBytes)) Forget();
      const bool ours = tag == TagOf(outer ? place_.inner : place_.field, kBytes);
      if (!(ours ? OurField(outer, rest) : OtherField(tag, rest))) return false;
    }
    return left_ == end;
  }

  // Its tag has been read.
  bool OurField(bool outer, std::string* rest) {
    uint64_t size = 0;
    if (!Varint(&size) || size > left_) return false;
    if (!outer) {
      Forget();  // the last one counts
      payload_->size_ = size;
      return Take(size, [this](std::string_view part) { payload_->parts_.push_back(part); });
    }
    std::string fields;
    if (!Fields(size, &fields, /*outer=*/false)) return false;
    AppendVarint(TagOf(place_.inner, kBytes), rest);
    AppendVarint(fields.size(), rest);
    *rest += fields;
    return true;
  }

  void Forget() {
    payload_->parts_.clear();
    payload_->size_ = 0;
  }

  bool OtherField(uint64_t tag, std::string* rest) {
    AppendVarint(tag, rest);
    const auto append = [rest](std::string_view part) { rest->append(part); };
    uint64_t value = 0;
    switch (tag & ((1U << kTypeBits) - 1)) {
      case kVarint:
        if (!Varint(&value)) return false;
        AppendVarint(value, rest);
        return true;
      case kFixed64: return Take(8, append);
      case kFixed32: return Take(4, append);
      case kBytes:
        if (!Varint(&value)) return false;
        AppendVarint(value, rest);
        return Take(value, append);
      default: return false;  // groups: none of our messages has one
    }
  }

  bool Varint(uint64_t* value) {
    *value = 0;
    for (size_t i = 0; i < kMostVarintBytes; ++i) {
      uint8_t byte = 0;
      if (!Take(1, [&byte](std::string_view part) { byte = static_cast<uint8_t>(part[0]); })) return false;
      *value |= static_cast<uint64_t>(byte & 0x7f) << (7 * i);
      if (byte < 0x80) return true;
    }
    return false;
  }

  template <typename Use>
  bool Take(size_t size, Use use) {
    if (size > left_) return false;
    left_ -= size;
    while (size > 0) {
      const grpc::Slice& slice = payload_->slices_[slice_];
      const size_t part = std::min(size, slice.size() - offset_);
      if (part > 0) use(std::string_view(reinterpret_cast<const char*>(slice.begin()) + offset_, part));
      size -= part;
      offset_ += part;
      if (offset_ == slice.size()) {
        ++slice_;
        offset_ = 0;
      }
    }
    return true;
  }

  const PayloadPlace place_;
  Payload* const payload_;
  size_t left_ = 0;    // bytes of the whole message that have not been read
  size_t slice_ = 0;   // where the next byte is
  size_t offset_ = 0;  // in it
};

absl::Status SplitPayload(grpc::ByteBuffer* bytes, PayloadPlace place, google::protobuf::MessageLite* message,
                          Payload* payload) {
  std::string rest;
  if (PayloadParser(place, payload).Split(bytes, &rest) && message->ParseFromString(rest)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("message: its bytes are no ", message->GetTypeName()));
}

}  // namespace tidepool
