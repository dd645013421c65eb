#include "worker/model/gguf_parser.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace tidepool {
namespace {

// Real files have some 40 keys and 10 tensors per layer. The limits bound the index that we allocate.
constexpr uint64_t kMaxKeys = 1 << 16;
constexpr uint64_t kMaxTensors = 1 << 17;
constexpr uint32_t kMaxDimensions = 4;  // of the format
constexpr uint64_t kMaxNameBytes = 65535;
constexpr int64_t kDefaultAlignment = 32;
constexpr int64_t kMaxAlignment = 1 << 20;

bool Multiply(uint64_t a, uint64_t b, uint64_t* product) { return !__builtin_mul_overflow(a, b, product); }

}  // namespace

size_t GgufScalarBytes(GgufType type) {
  switch (type) {
    case GgufType::kUint8:
    case GgufType::kInt8:
    case GgufType::kBool: return 1;
    case GgufType::kUint16:
    case GgufType::kInt16: return 2;
    case GgufType::kUint32:
    case GgufType::kInt32:
    case GgufType::kFloat32: return 4;
    case GgufType::kUint64:
    case GgufType::kInt64:
    case GgufType::kFloat64: return 8;
    case GgufType::kString:
    case GgufType::kArray: return 0;
  }
  return 0;
}

std::string GgufTypeName(GgufType type) {
  switch (type) {
    case GgufType::kUint8: return "uint8";
    case GgufType::kInt8: return "int8";
    case GgufType::kUint16: return "uint16";
    case GgufType::kInt16: return "int16";
    case GgufType::kUint32: return "uint32";
    case GgufType::kInt32: return "int32";
    case GgufType::kFloat32: return "float32";
    case GgufType::kBool: return "bool";
    case GgufType::kString: return "string";
    case GgufType::kArray: return "array";
    case GgufType::kUint64: return "uint64";
    case GgufType::kInt64: return "int64";
    case GgufType::kFloat64: return "float64";
  }
  return absl::StrCat("type ", static_cast<uint32_t>(type));
}

std::string Printable(std::string_view name) {
  constexpr size_t kShown = 80;
  return absl::Utf8SafeCEscape(std::string(name.substr(0, kShown))) + (name.size() > kShown ? "..." : "");
}

absl::Status GgufParser::Truncated(std::string_view what) const {
  return file_->Error(absl::StatusCode::kDataLoss, absl::StrCat("the file ends within ", std::string(what),
                                                                " (at byte ", at_, " of ", bytes_.size(), ")"));
}

absl::Status GgufParser::Corrupt(std::string_view message) const {
  return file_->Error(absl::StatusCode::kDataLoss, message);
}

template <typename T>
bool GgufParser::Read(T* value) {
  if (left() < sizeof(T)) return false;
  std::memcpy(value, bytes_.data() + at_, sizeof(T));
  at_ += sizeof(T);
  return true;
}

bool GgufParser::ReadString(std::string_view* text) {
  const size_t begin = at_;
  uint64_t size = 0;
  if (!Read(&size) || size > left()) {
    at_ = begin;
    return false;
  }
  *text = {reinterpret_cast<const char*>(bytes_.data() + at_), static_cast<size_t>(size)};
  at_ += size;
  return true;
}

absl::Status GgufParser::BadString(std::string_view what) {
  uint64_t size = 0;
  if (!Read(&size)) return Truncated(what);
  return Corrupt(absl::StrCat(std::string(what), " claims ", size, " bytes where ", left(), " are left in the file"));
}

absl::Status GgufParser::ReadArray(std::string_view key, GgufFile::Value* value) {
  const std::string what = absl::StrCat("the array of key ", Printable(key));
  uint32_t type = 0;
  if (!Read(&type) || !Read(&value->count)) return Truncated(what);
  value->type = static_cast<GgufType>(type);
  value->is_array = true;
  if (value->type == GgufType::kArray) {
    return file_->Error(absl::StatusCode::kUnimplemented, absl::StrCat(what, " holds arrays, which are not supported"));
  }
  if (value->type == GgufType::kString) {
    if (value->count > left() / sizeof(uint64_t)) {
      return Corrupt(
          absl::StrCat(what, " claims ", value->count, " strings where ", left(), " bytes are left in the file"));
    }
    value->data = bytes_.data() + at_;
    std::string_view ignored;
    for (uint64_t i = 0; i < value->count; ++i) {
      if (!ReadString(&ignored)) return BadString(absl::StrCat("element ", i, " of ", what));
    }
    return absl::OkStatus();
  }
  const size_t size = GgufScalarBytes(value->type);
  if (size == 0) return Corrupt(absl::StrCat(what, " has elements of unknown type ", type));
  if (value->count > left() / size) {
    return Corrupt(absl::StrCat(what, " claims ", value->count, " elements of ", size, " bytes where ", left(),
                                " bytes are left in the file"));
  }
  value->data = bytes_.data() + at_;
  at_ += value->count * size;
  return absl::OkStatus();
}

absl::Status GgufParser::ReadKeyValue(uint64_t index) {
  std::string_view key;
  if (!ReadString(&key)) return BadString(absl::StrCat("the name of key ", index));
  if (key.empty() || key.size() > kMaxNameBytes) {
    return Corrupt(
        absl::StrCat("the name of key ", index, " has ", key.size(), " bytes; allowed 1 to ", kMaxNameBytes));
  }
  const std::string what = absl::StrCat("key ", Printable(key));
  uint32_t type = 0;
  if (!Read(&type)) return Truncated(what);
  GgufFile::Value value{.type = static_cast<GgufType>(type)};
  if (value.type == GgufType::kArray) {
    TP_RETURN_IF_ERROR(ReadArray(key, &value));
  } else if (value.type == GgufType::kString) {
    value.data = bytes_.data() + at_;
    std::string_view ignored;
    if (!ReadString(&ignored)) return BadString(what);
  } else {
    const size_t size = GgufScalarBytes(value.type);
    if (size == 0) return Corrupt(absl::StrCat(what, " has unknown type ", type));
    if (size > left()) return Truncated(what);
    value.data = bytes_.data() + at_;
    at_ += size;
  }
  if (!file_->values_.emplace(key, value).second) return Corrupt(absl::StrCat(what, " occurs twice"));
  return absl::OkStatus();
}

absl::Status GgufParser::ReadTensor(uint64_t index) {
  std::string_view name;
  if (!ReadString(&name)) return BadString(absl::StrCat("the name of tensor ", index));
  if (name.empty() || name.size() > kMaxNameBytes) {
    return Corrupt(
        absl::StrCat("the name of tensor ", index, " has ", name.size(), " bytes; allowed 1 to ", kMaxNameBytes));
  }
  const std::string what = absl::StrCat("tensor ", Printable(name));
  uint32_t dimensions = 0;
  if (!Read(&dimensions)) return Truncated(what);
  if (dimensions < 1 || dimensions > kMaxDimensions) {
    return Corrupt(absl::StrCat(what, " has ", dimensions, " dimensions; allowed 1 to ", kMaxDimensions));
  }
  uint64_t columns = 0, rows = 1;
  for (uint32_t d = 0; d < dimensions; ++d) {
    uint64_t size = 0;
    if (!Read(&size)) return Truncated(what);
    uint64_t all = 0;
    if (size == 0 || size > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) ||
        (d > 0 && !Multiply(rows, size, &rows)) || !Multiply(rows, d == 0 ? size : columns, &all) ||
        all > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return Corrupt(absl::StrCat(what, ": dimension ", d, " is ", size, "; the product must be 1 to 2^63 - 1"));
    }
    if (d == 0) columns = size;
  }
  uint32_t type = 0;
  uint64_t offset = 0;
  if (!Read(&type) || !Read(&offset)) return Truncated(what);
  if (!IsSupportedTensorType(type)) {
    return file_->Error(absl::StatusCode::kUnimplemented,
                        absl::StrCat(what, " has type id ", type,
                                     "; supported are F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q4_K Q5_K Q6_K"));
  }
  TensorView tensor{.name = std::string(name), .type = static_cast<TensorType>(type)};
  const uint64_t block = static_cast<uint64_t>(BlockElements(tensor.type));
  uint64_t bytes = 0;
  if (columns % block != 0) {
    return Corrupt(absl::StrCat(what, " has rows of ", columns, " elements, which is not a multiple of the block of ",
                                block, " elements of ", TensorTypeName(tensor.type)));
  }
  if (!Multiply(columns / block, static_cast<uint64_t>(BlockBytes(tensor.type)), &bytes) ||
      !Multiply(bytes, rows, &bytes) || bytes > bytes_.size()) {
    return Corrupt(absl::StrCat(what, " of ", rows, " x ", columns, " elements is larger than the file (",
                                bytes_.size(), " bytes)"));
  }
  tensor.rows = static_cast<int64_t>(rows);
  tensor.columns = static_cast<int64_t>(columns);
  file_->tensors_.push_back(std::move(tensor));
  offsets_.push_back(offset);
  return absl::OkStatus();
}

absl::Status GgufParser::PlaceTensors() {
  TP_ASSIGN_OR_RETURN(const int64_t alignment,
                      file_->IntegerOr("general.alignment", kDefaultAlignment, 8, kMaxAlignment));
  if ((alignment & (alignment - 1)) != 0) {
    return Corrupt(
        absl::StrCat("general.alignment is ", alignment, "; it must be a power of two, 8 to ", kMaxAlignment));
  }
  const uint64_t mask = static_cast<uint64_t>(alignment) - 1;
  const uint64_t start = (at_ + mask) & ~mask;  // at_ and the mask are far below 2^63
  for (size_t i = 0; i < file_->tensors_.size(); ++i) {
    TensorView& tensor = file_->tensors_[i];
    const std::string what = absl::StrCat("tensor ", Printable(tensor.name));
    if ((offsets_[i] & mask) != 0) {
      return Corrupt(
          absl::StrCat(what, " has offset ", offsets_[i], ", which is not a multiple of the alignment ", alignment));
    }
    if (start > bytes_.size() || offsets_[i] > bytes_.size() - start ||
        tensor.bytes() > bytes_.size() - start - offsets_[i]) {
      return Corrupt(absl::StrCat(what, " (", tensor.bytes(), " bytes at offset ", offsets_[i],
                                  " of the data, which start at byte ", start, ") reaches past the end of the file at ",
                                  bytes_.size()));
    }
    tensor.data = bytes_.data() + start + offsets_[i];
    if (!file_->tensor_index_.emplace(tensor.name, i).second) return Corrupt(absl::StrCat(what, " occurs twice"));
  }
  return absl::OkStatus();
}

absl::Status GgufParser::CheckOverlap() const {
  const std::vector<TensorView>& tensors = file_->tensors_;
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return tensors[a].data < tensors[b].data; });
  for (size_t i = 1; i < order.size(); ++i) {
    const TensorView& before = tensors[order[i - 1]];
    if (before.data + before.bytes() > tensors[order[i]].data) {
      return Corrupt(
          absl::StrCat("tensors ", Printable(before.name), " and ", Printable(tensors[order[i]].name), " overlap"));
    }
  }
  return absl::OkStatus();
}

absl::Status GgufParser::Parse() {
  char magic[4];
  if (!Read(&magic)) return Truncated("the magic number");
  if (std::memcmp(magic, "GGUF", 4) != 0) {
    return file_->Error(
        absl::StatusCode::kInvalidArgument,
        absl::StrCat("not a GGUF file: it begins with \"", Printable({magic, 4}), "\" instead of \"GGUF\""));
  }
  if (!Read(&file_->version_)) return Truncated("the version");
  if (file_->version_ != 2 && file_->version_ != 3) {
    const bool swapped = __builtin_bswap32(file_->version_) <= 3;
    return file_->Error(absl::StatusCode::kUnimplemented,
                        swapped ? std::string("a big-endian file; only little-endian ones are read")
                                : absl::StrCat("GGUF version ", file_->version_, "; supported are 2 and 3"));
  }
  uint64_t tensor_count = 0, key_count = 0;
  if (!Read(&tensor_count) || !Read(&key_count)) return Truncated("the counts");
  constexpr size_t kSmallestKey = 8 + 1 + 4 + 1, kSmallestTensor = 8 + 1 + 4 + 8 + 4 + 8;
  const uint64_t most_keys = std::min<uint64_t>(kMaxKeys, left() / kSmallestKey);
  if (key_count > most_keys) return Corrupt(absl::StrCat("key count is ", key_count, "; allowed 0 to ", most_keys));
  for (uint64_t i = 0; i < key_count; ++i) TP_RETURN_IF_ERROR(ReadKeyValue(i));
  const uint64_t most_tensors = std::min<uint64_t>(kMaxTensors, left() / kSmallestTensor);
  if (tensor_count > most_tensors) {
    return Corrupt(absl::StrCat("tensor count is ", tensor_count, "; allowed 0 to ", most_tensors));
  }
  file_->tensors_.reserve(tensor_count);
  offsets_.reserve(tensor_count);
  for (uint64_t i = 0; i < tensor_count; ++i) TP_RETURN_IF_ERROR(ReadTensor(i));
  TP_RETURN_IF_ERROR(PlaceTensors());
  return CheckOverlap();
}

}  // namespace tidepool
