// Reads the header of a GGUF file: metadata, tensor directory, data section. Internal to GgufFile.
#ifndef TIDEPOOL_WORKER_MODEL_GGUF_PARSER_H_
#define TIDEPOOL_WORKER_MODEL_GGUF_PARSER_H_

#include <string>
#include <string_view>
#include <vector>

#include "worker/model/gguf_file.h"

namespace tidepool {

// Bytes of one value of a fixed-size type; 0 for strings, arrays and unknown types.
size_t GgufScalarBytes(GgufType type);
std::string GgufTypeName(GgufType type);
// A key or tensor name as it may appear in a message: cut at 80 bytes, unprintable bytes escaped.
std::string Printable(std::string_view name);

class GgufParser {
 public:
  // Fills path_-less fields of `file` from file->bytes_.
  explicit GgufParser(GgufFile* file) : file_(file), bytes_(file->bytes_) {}
  absl::Status Parse();

 private:
  size_t left() const { return bytes_.size() - at_; }
  template <typename T>
  bool Read(T* value);
  bool ReadString(std::string_view* text);        // false, and nothing read, when it does not fit into the file
  absl::Status BadString(std::string_view what);  // says why the string here does not fit
  absl::Status ReadKeyValue(uint64_t index);
  absl::Status ReadArray(std::string_view key, GgufFile::Value* value);
  absl::Status ReadTensor(uint64_t index);
  absl::Status PlaceTensors();
  absl::Status CheckOverlap() const;
  absl::Status Truncated(std::string_view what) const;
  absl::Status Corrupt(std::string_view message) const;

  GgufFile* const file_;
  const absl::Span<const uint8_t> bytes_;
  size_t at_ = 0;
  std::vector<uint64_t> offsets_;  // of each tensor, relative to the data section
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_MODEL_GGUF_PARSER_H_
