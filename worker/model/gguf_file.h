// A GGUF file (versions 2 and 3, little endian), memory-mapped. Everything that the file claims (counts, lengths,
// types, alignment, offsets, products of dimensions) is checked against its size when it is opened, so what the getters
// return can be used without further checks of bounds. Immutable and thread-safe. Format: docs/models.md.
//
// A file that is truncated by someone else while it is mapped ends the process (SIGBUS), as with any mapped file.
#ifndef TIDEPOOL_WORKER_MODEL_GGUF_FILE_H_
#define TIDEPOOL_WORKER_MODEL_GGUF_FILE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/model/tensor_view.h"

namespace tidepool {

// Type ids of metadata values, as in the file.
enum class GgufType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

class GgufFile {
 public:
  // NotFound or PermissionDenied for the file; DataLoss when it is cut short or contradicts itself; Unimplemented for a
  // version, tensor type or nesting that we do not read. Messages name the file and the key or tensor.
  static absl::StatusOr<std::unique_ptr<GgufFile>> Open(const std::string& path);
  // The same over bytes in memory, which must outlive the result. `name` stands for the path in messages.
  static absl::StatusOr<std::unique_ptr<GgufFile>> Parse(std::string name, absl::Span<const uint8_t> bytes);
  ~GgufFile();
  GgufFile(const GgufFile&) = delete;
  GgufFile& operator=(const GgufFile&) = delete;

  const std::string& path() const { return path_; }
  uint32_t version() const { return version_; }
  size_t size_bytes() const { return bytes_.size(); }
  // Gives the machine's memory of the file back; what is read again comes from the file again.
  void ReleasePages() const;

  // Metadata. Strings are views into the file. NotFound naming an absent key; InvalidArgument naming the key and what
  // it holds when the type is another one or the number is outside [low, high].
  bool Has(std::string_view key) const;
  absl::StatusOr<int64_t> Integer(std::string_view key, int64_t low, int64_t high) const;  // any integer type
  absl::StatusOr<double> Float(std::string_view key, double low, double high) const;       // never NaN
  absl::StatusOr<bool> Bool(std::string_view key) const;
  absl::StatusOr<std::string_view> String(std::string_view key) const;
  absl::StatusOr<std::vector<std::string_view>> Strings(std::string_view key) const;
  absl::StatusOr<std::vector<int64_t>> Integers(std::string_view key) const;
  absl::StatusOr<std::vector<float>> Floats(std::string_view key) const;
  // The same with a value for an absent key. A present key of another type is still an error.
  absl::StatusOr<int64_t> IntegerOr(std::string_view key, int64_t fallback, int64_t low, int64_t high) const;
  absl::StatusOr<double> FloatOr(std::string_view key, double fallback, double low, double high) const;
  absl::StatusOr<bool> BoolOr(std::string_view key, bool fallback) const;
  absl::StatusOr<std::string_view> StringOr(std::string_view key, std::string_view fallback) const;

  // Tensors in file order, all within the file, none overlapping. Dimensions above the second are folded into the rows.
  absl::Span<const TensorView> tensors() const { return tensors_; }
  const TensorView* FindTensor(std::string_view name) const;  // null when absent

  // "PATH: message", for errors about this file.
  absl::Status Error(absl::StatusCode code, std::string_view message) const;

 private:
  friend class GgufParser;

  struct Value {
    GgufType type;  // of the elements, for an array
    bool is_array = false;
    uint64_t count = 1;
    const uint8_t* data = nullptr;
  };

  explicit GgufFile(std::string path) : path_(std::move(path)) {}
  absl::StatusOr<const Value*> Find(std::string_view key, bool array, const char* expected) const;

  std::string path_;
  uint32_t version_ = 0;
  absl::Span<const uint8_t> bytes_;
  bool mapped_ = false;
  std::unordered_map<std::string_view, Value> values_;
  std::vector<TensorView> tensors_;
  std::unordered_map<std::string_view, size_t> tensor_index_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_MODEL_GGUF_FILE_H_
