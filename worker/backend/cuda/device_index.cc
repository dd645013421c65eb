#include "worker/backend/cuda/device_index.h"

#include <algorithm>
#include <cstring>

#include "worker/kernels/cuda/recall_body.h"

namespace tidepool::cuda {
namespace {

constexpr size_t kLeastCodes = size_t{4} << 10, kLeastTables = size_t{4} << 10;  // of a head
constexpr size_t kCopyBytes = size_t{1} << 20;

}  // namespace

DeviceIndex::~DeviceIndex() {
  Free(codes_);
  Free(tables_);
}

DeviceIndex& DeviceIndex::Of(Device* device, IndexRoom* room, const IndexCodes& index) {
  std::unique_ptr<IndexOnDevice>& state = *index.on_device;
  if (state == nullptr) state = std::make_unique<DeviceIndex>(device, room, index.heads);
  return static_cast<DeviceIndex&>(*state);
}

void DeviceIndex::Free(Memory& memory) {
  if (memory.data == nullptr) return;
  device_->Synchronize();
  device_->Free(memory.data);
  room_->used -= memory.each * told_.size();
  memory = Memory();
}

void DeviceIndex::Grow(Memory& memory, size_t each) {
  if (each <= memory.each) return;
  Free(memory);
  std::fill(told_.begin(), told_.end(), Told());
  each = (each + each / 4 + 255) / 256 * 256;
  const size_t bytes = each * told_.size();
  if (bytes > room_->bytes - std::min(room_->bytes, room_->used)) return;
  const absl::StatusOr<void*> data = device_->Allocate(bytes);
  if (!data.ok()) return;
  room_->used += bytes;
  memory = {static_cast<uint8_t*>(*data), each};
}

size_t DeviceIndex::TablesOf(const IndexCodes& index) {
  return index.segments.size() * RecallTableBytes(index.shape.head_dim);
}

void DeviceIndex::Reserve(const IndexCodes& index) {
  Grow(codes_, std::max(kLeastCodes, index.codes.size()));
  Grow(tables_, std::max(kLeastTables, TablesOf(index)));
}

void DeviceIndex::Tell(const IndexCodes& index, DeviceBuffer& pinned) {
  Told& told = told_[index.head];
  char* buffer = pinned.Get<char>(kCopyBytes);
  size_t used = 0;
  const auto copy = [&](void* to, size_t bytes, auto&& fill) {
    if (used + bytes > kCopyBytes) {
      device_->Synchronize();
      used = 0;
    }
    fill(buffer + used);
    device_->CopyToDevice(to, buffer + used, bytes);
    used += (bytes + 15) / 16 * 16;
  };
  while (told.codes < index.codes.size()) {
    const size_t bytes = std::min(kCopyBytes, index.codes.size() - told.codes);
    copy(codes_.data + index.head * codes_.each + told.codes, bytes,
         [&](char* to) { std::memcpy(to, index.codes.data() + told.codes, bytes); });
    told.codes += bytes;
  }
  const auto head_dim = static_cast<size_t>(index.shape.head_dim);
  const auto table = static_cast<size_t>(RecallTableBytes(index.shape.head_dim));
  for (; told.segments < index.segments.size(); ++told.segments) {
    const ProductTables& of = *index.segments[told.segments].tables;
    copy(tables_.data + index.head * tables_.each + told.segments * table, table, [&](char* to) {
      std::memcpy(to, of.offset.data(), head_dim * sizeof(float));
      std::memcpy(to + head_dim * 4, of.scale.data(), head_dim * sizeof(float));
      std::memcpy(to + head_dim * 8, of.centroid.data(), head_dim * 16);
      std::memcpy(to + head_dim * 24, of.channel.data(), head_dim);
    });
  }
  if (used > 0) device_->Synchronize();  // the next one overwrites it
}

}  // namespace tidepool::cuda
