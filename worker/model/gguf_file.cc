#include "worker/model/gguf_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "worker/model/gguf_parser.h"

namespace tidepool {
namespace {

template <typename T>
T Load(const uint8_t* data) {
  T value;
  std::memcpy(&value, data, sizeof value);
  return value;
}

// The parser has checked that the length and the bytes lie within the file.
std::string_view LoadString(const uint8_t* data) {
  return {reinterpret_cast<const char*>(data) + sizeof(uint64_t), static_cast<size_t>(Load<uint64_t>(data))};
}

// False when the type is no integer or the value does not fit.
bool LoadInteger(GgufType type, const uint8_t* data, int64_t* value) {
  switch (type) {
    case GgufType::kUint8: *value = Load<uint8_t>(data); return true;
    case GgufType::kInt8: *value = Load<int8_t>(data); return true;
    case GgufType::kUint16: *value = Load<uint16_t>(data); return true;
    case GgufType::kInt16: *value = Load<int16_t>(data); return true;
    case GgufType::kUint32: *value = Load<uint32_t>(data); return true;
    case GgufType::kInt32: *value = Load<int32_t>(data); return true;
    case GgufType::kUint64:
    case GgufType::kInt64: *value = Load<int64_t>(data); return type == GgufType::kInt64 || *value >= 0;
    default: return false;
  }
}

bool LoadFloat(GgufType type, const uint8_t* data, double* value) {
  if (type == GgufType::kFloat32) {
    *value = Load<float>(data);
  } else if (type == GgufType::kFloat64) {
    *value = Load<double>(data);
  } else {
    return false;
  }
  return true;
}

absl::Status SystemError(const std::string& path, const char* call) {
  const int error = errno;
  const absl::StatusCode code = error == ENOENT   ? absl::StatusCode::kNotFound
                                : error == EACCES ? absl::StatusCode::kPermissionDenied
                                                  : absl::StatusCode::kUnavailable;
  return absl::Status(code, absl::StrCat(path, ": ", call, ": ", std::strerror(error)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<GgufFile>> GgufFile::Open(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return SystemError(path, "open");
  const absl::Cleanup close_file = [fd] { close(fd); };  // the mapping outlives the descriptor
  struct stat facts {};
  if (fstat(fd, &facts) != 0) return SystemError(path, "fstat");
  if (!S_ISREG(facts.st_mode)) return absl::InvalidArgumentError(absl::StrCat(path, ": not a regular file"));
  if (facts.st_size == 0) return absl::DataLossError(absl::StrCat(path, ": the file is empty"));
  const size_t size = static_cast<size_t>(facts.st_size);
  void* data = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (data == MAP_FAILED) return SystemError(path, "mmap");
  std::unique_ptr<GgufFile> file(new GgufFile(path));
  file->bytes_ = {static_cast<const uint8_t*>(data), size};
  file->mapped_ = true;
  TP_RETURN_IF_ERROR(GgufParser(file.get()).Parse());
  return file;
}

absl::StatusOr<std::unique_ptr<GgufFile>> GgufFile::Parse(std::string name, absl::Span<const uint8_t> bytes) {
  std::unique_ptr<GgufFile> file(new GgufFile(std::move(name)));
  file->bytes_ = bytes;
  TP_RETURN_IF_ERROR(GgufParser(file.get()).Parse());
  return file;
}

void GgufFile::ReleasePages() const {
  if (mapped_) madvise(const_cast<uint8_t*>(bytes_.data()), bytes_.size(), MADV_DONTNEED);
}

GgufFile::~GgufFile() {
  if (mapped_) TIDEPOOL_CHECK(munmap(const_cast<uint8_t*>(bytes_.data()), bytes_.size()) == 0);
}

absl::Status GgufFile::Error(absl::StatusCode code, std::string_view message) const {
  return absl::Status(code, absl::StrCat(path_, ": ", std::string(message)));
}

bool GgufFile::Has(std::string_view key) const { return values_.find(key) != values_.end(); }

const TensorView* GgufFile::FindTensor(std::string_view name) const {
  const auto it = tensor_index_.find(name);
  return it == tensor_index_.end() ? nullptr : &tensors_[it->second];
}

absl::StatusOr<const GgufFile::Value*> GgufFile::Find(std::string_view key, bool array, const char* expected) const {
  const auto it = values_.find(key);
  if (it == values_.end()) {
    return Error(absl::StatusCode::kNotFound, absl::StrCat("key ", Printable(key), " is missing"));
  }
  const Value& value = it->second;
  const bool wanted_string = std::strcmp(expected, "string") == 0;
  const bool is_string = value.type == GgufType::kString;
  if (value.is_array != array || wanted_string != is_string) {
    return Error(absl::StatusCode::kInvalidArgument,
                 absl::StrCat("key ", Printable(key), " is of type ", value.is_array ? "array of " : "",
                              GgufTypeName(value.type), "; expected ", array ? "array of " : "", expected));
  }
  return &value;
}

absl::StatusOr<int64_t> GgufFile::Integer(std::string_view key, int64_t low, int64_t high) const {
  TP_ASSIGN_OR_RETURN(const Value* value, Find(key, false, "integer"));
  int64_t number = 0;
  if (!LoadInteger(value->type, value->data, &number)) {
    return Error(absl::StatusCode::kInvalidArgument,
                 absl::StrCat("key ", Printable(key), " is of type ", GgufTypeName(value->type),
                              " or too large; expected integer"));
  }
  if (number < low || number > high) {
    return Error(absl::StatusCode::kInvalidArgument,
                 absl::StrCat("key ", Printable(key), " is ", number, "; allowed ", low, " to ", high));
  }
  return number;
}

absl::StatusOr<double> GgufFile::Float(std::string_view key, double low, double high) const {
  TP_ASSIGN_OR_RETURN(const Value* value, Find(key, false, "float"));
  double number = 0;
  if (!LoadFloat(value->type, value->data, &number)) {
    return Error(absl::StatusCode::kInvalidArgument,
                 absl::StrCat("key ", Printable(key), " is of type ", GgufTypeName(value->type), "; expected float"));
  }
  if (!(number >= low && number <= high)) {  // also when it is NaN
    return Error(absl::StatusCode::kInvalidArgument,
                 absl::StrCat("key ", Printable(key), " is ", number, "; allowed ", low, " to ", high));
  }
  return number;
}

absl::StatusOr<bool> GgufFile::Bool(std::string_view key) const {
  TP_ASSIGN_OR_RETURN(const Value* value, Find(key, false, "bool"));
  if (value->type != GgufType::kBool || *value->data > 1) {
    return Error(
        absl::StatusCode::kInvalidArgument,
        absl::StrCat("key ", Printable(key), " is of type ", GgufTypeName(value->type), "; expected bool (0 or 1)"));
  }
  return *value->data == 1;
}

absl::StatusOr<std::string_view> GgufFile::String(std::string_view key) const {
  TP_ASSIGN_OR_RETURN(const Value* value, Find(key, false, "string"));
  return LoadString(value->data);
}

absl::StatusOr<std::vector<std::string_view>> GgufFile::Strings(std::string_view key) const {
  TP_ASSIGN_OR_RETURN(const Value* value, Find(key, true, "string"));
  std::vector<std::string_view> strings;
  strings.reserve(value->count);
  const uint8_t* data = value->data;
  for (uint64_t i = 0; i < value->count; ++i) {
    strings.push_back(LoadString(data));
    data += sizeof(uint64_t) + strings.back().size();
  }
  return strings;
}

absl::StatusOr<std::vector<int64_t>> GgufFile::Integers(std::string_view key) const {
  TP_ASSIGN_OR_RETURN(const Value* value, Find(key, true, "integer"));
  std::vector<int64_t> numbers(value->count);
  for (uint64_t i = 0; i < value->count; ++i) {
    if (!LoadInteger(value->type, value->data + i * GgufScalarBytes(value->type), &numbers[i])) {
      return Error(absl::StatusCode::kInvalidArgument,
                   absl::StrCat("key ", Printable(key), " is of type array of ", GgufTypeName(value->type),
                                "; expected array of integer"));
    }
  }
  return numbers;
}

absl::StatusOr<std::vector<float>> GgufFile::Floats(std::string_view key) const {
  TP_ASSIGN_OR_RETURN(const Value* value, Find(key, true, "float"));
  std::vector<float> numbers(value->count);
  for (uint64_t i = 0; i < value->count; ++i) {
    double number = 0;
    if (!LoadFloat(value->type, value->data + i * GgufScalarBytes(value->type), &number)) {
      return Error(absl::StatusCode::kInvalidArgument,
                   absl::StrCat("key ", Printable(key), " is of type array of ", GgufTypeName(value->type),
                                "; expected array of float"));
    }
    if (std::isnan(number)) {
      return Error(absl::StatusCode::kInvalidArgument, absl::StrCat("key ", Printable(key), "[", i, "] is NaN"));
    }
    numbers[i] = static_cast<float>(number);
  }
  return numbers;
}

absl::StatusOr<int64_t> GgufFile::IntegerOr(std::string_view key, int64_t fallback, int64_t low, int64_t high) const {
  if (!Has(key)) return fallback;
  return Integer(key, low, high);
}
absl::StatusOr<double> GgufFile::FloatOr(std::string_view key, double fallback, double low, double high) const {
  if (!Has(key)) return fallback;
  return Float(key, low, high);
}
absl::StatusOr<bool> GgufFile::BoolOr(std::string_view key, bool fallback) const {
  if (!Has(key)) return fallback;
  return Bool(key);
}
absl::StatusOr<std::string_view> GgufFile::StringOr(std::string_view key, std::string_view fallback) const {
  if (!Has(key)) return fallback;
  return String(key);
}

}  // namespace tidepool
