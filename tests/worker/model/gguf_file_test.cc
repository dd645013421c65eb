// Reading right GGUF files, and saying what is wrong with the others: nothing that a file claims is believed.
#include "worker/model/gguf_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <string>

#include "tests/support/paths.h"
#include "tests/support/temp_dir.h"
#include "tests/worker/model/gguf_builder.h"

namespace tidepool {
namespace {

using test::AsBytes;
using test::GgufBuilder;
using test::TinyModel;
using testing::HasSubstr;

constexpr uint64_t kHuge = std::numeric_limits<uint64_t>::max();

TEST(GgufFileTest, GettersGiveWhatWasWritten) {
  GgufBuilder builder;
  builder.U32("u", 7).I32("i", -7).U64("big", 1ull << 40).F32("f", 0.5f).Bool("yes", 1).String("s", "text");
  builder.Strings("words", {"a", "", "bc"}).Array<int32_t>("numbers", 5, {3, -1}).Array<float>("reals", 6, {1.5f, -2});
  const std::string bytes = builder.Build();
  const auto file = GgufFile::Parse("f.gguf", AsBytes(bytes));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->Integer("u", 0, 10).value(), 7);
  EXPECT_EQ((*file)->Integer("i", -10, 10).value(), -7);
  EXPECT_EQ((*file)->Integer("big", 0, 1ll << 41).value(), 1ll << 40);
  EXPECT_EQ((*file)->Float("f", 0, 1).value(), 0.5);
  EXPECT_TRUE((*file)->Bool("yes").value());
  EXPECT_EQ((*file)->String("s").value(), "text");
  EXPECT_EQ((*file)->Strings("words").value(), (std::vector<std::string_view>{"a", "", "bc"}));
  EXPECT_EQ((*file)->Integers("numbers").value(), (std::vector<int64_t>{3, -1}));
  EXPECT_EQ((*file)->Floats("reals").value(), (std::vector<float>{1.5f, -2}));
  EXPECT_EQ((*file)->IntegerOr("absent", 4, 0, 1).value(), 4);
  EXPECT_EQ((*file)->StringOr("absent", "x").value(), "x");
  EXPECT_FALSE((*file)->BoolOr("absent", false).value());
}

TEST(GgufFileTest, GetterErrorsNameFileKeyAndRange) {
  GgufBuilder builder;
  builder.U32("u", 7).F32("f", std::numeric_limits<float>::quiet_NaN()).String("s", "text").Bool("two", 2);
  builder.Array<float>("reals", 6, {1, std::numeric_limits<float>::quiet_NaN()}).U64("big", kHuge);
  const std::string bytes = builder.Build();
  const auto file = GgufFile::Parse("dir/f.gguf", AsBytes(bytes));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->Integer("u", 8, 10).status().message(), "dir/f.gguf: key u is 7; allowed 8 to 10");
  EXPECT_EQ((*file)->Integer("gone", 0, 1).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ((*file)->Integer("gone", 0, 1).status().message(), "dir/f.gguf: key gone is missing");
  EXPECT_EQ((*file)->Integer("s", 0, 1).status().message(), "dir/f.gguf: key s is of type string; expected integer");
  EXPECT_EQ((*file)->String("u").status().message(), "dir/f.gguf: key u is of type uint32; expected string");
  EXPECT_EQ((*file)->Strings("s").status().message(), "dir/f.gguf: key s is of type string; expected array of string");
  EXPECT_EQ((*file)->IntegerOr("reals", 0, 0, 1).status().message(),
            "dir/f.gguf: key reals is of type array of float32; expected integer");
  EXPECT_THAT(std::string((*file)->Float("f", 0, 1).status().message()), HasSubstr("key f is nan; allowed 0 to 1"));
  EXPECT_THAT(std::string((*file)->Float("u", 0, 1).status().message()),
              HasSubstr("key u is of type uint32; expected float"));
  EXPECT_THAT(std::string((*file)->Floats("reals").status().message()), HasSubstr("key reals[1] is NaN"));
  EXPECT_THAT(std::string((*file)->Bool("two").status().message()), HasSubstr("key two"));
  EXPECT_THAT(std::string((*file)->Integer("big", 0, 1).status().message()), HasSubstr("key big"));
}

TEST(GgufFileTest, TensorsAreViewsIntoTheBytes) {
  GgufBuilder builder;
  builder.AddF32("m", {4, 3}).AddF32("cube", {2, 3, 5}).AddF32("v", {5});
  const std::string bytes = builder.Build();
  const auto file = GgufFile::Parse("f", AsBytes(bytes));
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ((*file)->tensors().size(), 3u);
  const TensorView* matrix = (*file)->FindTensor("m");
  ASSERT_NE(matrix, nullptr);
  EXPECT_EQ(matrix->rows, 3);
  EXPECT_EQ(matrix->columns, 4);
  float row[4];
  DequantizeRow(*matrix, 2, row);
  EXPECT_FLOAT_EQ(row[0], 0.09f);
  EXPECT_EQ((*file)->FindTensor("cube")->rows, 15);
  EXPECT_EQ((*file)->FindTensor("v")->rows, 1);
  EXPECT_EQ((*file)->FindTensor("absent"), nullptr);
}

TEST(GgufFileTest, Version2IsRead) {
  GgufBuilder builder;
  builder.version = 2;
  builder.U32("u", 1);
  const std::string bytes = builder.Build();
  EXPECT_TRUE(GgufFile::Parse("f", AsBytes(bytes)).ok());
}

TEST(GgufFileTest, DeclaredAlignmentMovesTheData) {
  GgufBuilder builder;
  builder.alignment = 128;
  builder.U32("general.alignment", 128).AddF32("a", {3}).AddF32("b", {3});
  const std::string bytes = builder.Build();
  const auto file = GgufFile::Parse("f", AsBytes(bytes));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->FindTensor("b")->data - (*file)->FindTensor("a")->data, 128);
}

TEST(GgufFileTest, FilesThatCannotBeOpenedAreNamed) {
  const auto absent = GgufFile::Open("/nonexistent/model.gguf");
  EXPECT_EQ(absent.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(absent.status().message()), HasSubstr("/nonexistent/model.gguf"));
  EXPECT_EQ(GgufFile::Open(testing::TempDir()).status().code(), absl::StatusCode::kInvalidArgument);
  const std::string empty = testing::TempDir() + "/empty.gguf";
  ASSERT_NE(std::ofstream(empty).is_open(), false);
  EXPECT_EQ(GgufFile::Open(empty).status().code(), absl::StatusCode::kDataLoss);
}

TEST(GgufFileTest, WhatIsReadAfterItsPagesWereReleasedIsTheFile) {
  GgufBuilder builder;
  builder.U32("number", 7).AddF32("a", {3, 4});
  const test::TempDir dir;
  const std::string path = dir.File("released.gguf");
  std::ofstream(path, std::ios::binary) << builder.Build();
  const auto file = GgufFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  const TensorView* tensor = (*file)->FindTensor("a");
  const std::vector<uint8_t> before(tensor->data, tensor->data + 12 * sizeof(float));
  (*file)->ReleasePages();
  EXPECT_EQ(*(*file)->Integer("number", 0, 10), 7);
  EXPECT_EQ(std::vector<uint8_t>(tensor->data, tensor->data + before.size()), before);
}

struct HostileFile {
  const char* name;
  std::function<void(GgufBuilder&)> spoil;
  const char* message;  // part of the error
};

void PrintTo(const HostileFile& file, std::ostream* out) { *out << file.name; }

class HostileFileTest : public testing::TestWithParam<HostileFile> {};

TEST_P(HostileFileTest, IsRefusedByName) {
  GgufBuilder builder = TinyModel("llama");
  GetParam().spoil(builder);
  const std::string bytes = builder.Build();
  const auto file = GgufFile::Parse("bad.gguf", AsBytes(bytes));
  ASSERT_FALSE(file.ok());
  EXPECT_THAT(std::string(file.status().message()), HasSubstr(GetParam().message));
  EXPECT_EQ(file.status().message().substr(0, 10), "bad.gguf: ");
}

std::string StringOfSize(uint64_t size) { return GgufBuilder::Bytes(size); }
std::string ArrayOf(uint32_t type, uint64_t count) { return GgufBuilder::Bytes(type) + GgufBuilder::Bytes(count); }

const HostileFile kHostileFiles[] = {
    {"WrongMagic", [](GgufBuilder& b) { b.magic = "GGML"; }, "not a GGUF file: it begins with \"GGML\""},
    {"BinaryMagic", [](GgufBuilder& b) { b.magic = std::string("\0\1\2\xff", 4); }, "not a GGUF file"},
    {"Version1", [](GgufBuilder& b) { b.version = 1; }, "GGUF version 1; supported are 2 and 3"},
    {"Version9", [](GgufBuilder& b) { b.version = 9; }, "GGUF version 9"},
    {"BigEndian", [](GgufBuilder& b) { b.version = 0x03000000; }, "big-endian"},
    {"HugeKeyCount", [](GgufBuilder& b) { b.claimed_keys = std::numeric_limits<int64_t>::max(); },
     "key count is 922337203"},
    {"KeyCountAboveTheLimit", [](GgufBuilder& b) { b.claimed_keys = 65537; }, "key count is 65537; allowed 0 to"},
    {"OneKeyTooMany", [](GgufBuilder& b) { b.claimed_keys = 40; }, "key"},
    {"HugeTensorCount", [](GgufBuilder& b) { b.claimed_tensors = std::numeric_limits<int64_t>::max(); },
     "tensor count is 922337"},
    {"OneTensorTooMany", [](GgufBuilder& b) { b.claimed_tensors = 12; }, "tensor"},
    {"HugeKeyName", [](GgufBuilder& b) { b.Append(std::string(70000, 'k'), 4, "0000"); },
     "70000 bytes; allowed 1 to 65535"},
    {"EmptyKeyName", [](GgufBuilder& b) { b.Append("", 4, "0000"); }, "has 0 bytes; allowed 1 to"},
    {"HugeString", [](GgufBuilder& b) { b.Set("s", 8, StringOfSize(kHuge)); },
     "key s claims 18446744073709551615 bytes"},
    {"StringOneTooLong",
     [](GgufBuilder& b) {
       b.tensors.clear();
       b.alignment = 1;
       b.Set("s", 8, StringOfSize(5) + "four");
     },
     "key s claims 5 bytes where 4 are left"},
    {"UnknownValueType", [](GgufBuilder& b) { b.Set("odd", 13, "0000"); }, "key odd has unknown type 13"},
    {"UnknownArrayType", [](GgufBuilder& b) { b.Set("odd", 9, ArrayOf(77, 1)); },
     "key odd has elements of unknown type 77"},
    {"ArrayOfArrays", [](GgufBuilder& b) { b.Set("deep", 9, ArrayOf(9, 1)); }, "key deep holds arrays"},
    {"HugeArray", [](GgufBuilder& b) { b.Set("a", 9, ArrayOf(10, kHuge / 8 + 2)); }, "the array of key a claims"},
    {"HugeStringArray", [](GgufBuilder& b) { b.Set("a", 9, ArrayOf(8, 1ull << 61)); }, "the array of key a claims"},
    {"HugeStringInArray",
     [](GgufBuilder& b) { b.Set("a", 9, ArrayOf(8, 2) + GgufBuilder::Text("x") + StringOfSize(kHuge)); },
     "element 1 of the array of key a claims 18446744073709551615 bytes"},
    {"KeyTwice", [](GgufBuilder& b) { b.Append("general.name", 4, "0000"); }, "key general.name occurs twice"},
    {"AlignmentZero", [](GgufBuilder& b) { b.U32("general.alignment", 0); }, "key general.alignment is 0; allowed 8"},
    {"AlignmentNoPowerOfTwo", [](GgufBuilder& b) { b.U32("general.alignment", 48); },
     "general.alignment is 48; it must be a power"},
    {"AlignmentHuge", [](GgufBuilder& b) { b.U32("general.alignment", 0x80000000u); },
     "key general.alignment is 2147483648"},
    {"AlignmentText", [](GgufBuilder& b) { b.String("general.alignment", "32"); },
     "key general.alignment is of type string"},
    {"OffsetUnaligned", [](GgufBuilder& b) { b.Find("output_norm.weight").offset = 4; },
     "tensor output_norm.weight has offset 4, which is not a multiple of the alignment 32"},
    {"OffsetPastTheEnd", [](GgufBuilder& b) { b.Find("output_norm.weight").offset = 1ll << 40; },
     "tensor output_norm.weight (128 bytes at offset 1099511627776"},
    {"OffsetOverflows",
     [](GgufBuilder& b) { b.Find("output_norm.weight").offset = std::numeric_limits<int64_t>::max() - 31; },
     "reaches past the end of the file"},
    {"TensorsOverlap", [](GgufBuilder& b) { b.Find("output_norm.weight").offset = 64; },
     "tensors token_embd.weight and output_norm.weight overlap"},
    {"TensorTwice", [](GgufBuilder& b) { b.AddF32("output_norm.weight", {32}); },
     "tensor output_norm.weight occurs twice"},
    {"TensorWithoutName", [](GgufBuilder& b) { b.AddF32("", {32}); }, "has 0 bytes"},
    {"TensorTypeUnknown", [](GgufBuilder& b) { b.Find("output_norm.weight").type = 999; },
     "tensor output_norm.weight has type id 999; supported are F32"},
    {"NoDimensions", [](GgufBuilder& b) { b.Find("output_norm.weight").dimensions.clear(); },
     "tensor output_norm.weight has 0 dimensions; allowed 1 to 4"},
    {"FiveDimensions",
     [](GgufBuilder& b) {
       b.Find("output_norm.weight").dimensions = {1, 1, 1, 1, 32};
     },
     "has 5 dimensions"},
    {"DimensionZero",
     [](GgufBuilder& b) {
       b.Find("output_norm.weight").dimensions = {32, 0};
     },
     "tensor output_norm.weight: dimension 1 is 0"},
    {"DimensionHuge", [](GgufBuilder& b) { b.Find("output_norm.weight").dimensions = {kHuge}; },
     "tensor output_norm.weight: dimension 0 is 18446744073709551615"},
    {"DimensionsOverflow",
     [](GgufBuilder& b) {
       b.Find("output_norm.weight").dimensions = {1ull << 32, 1ull << 32};
     },
     "tensor output_norm.weight: dimension 1 is 4294967296"},
    {"DimensionsOverflowToSmall",
     [](GgufBuilder& b) {
       b.Find("output_norm.weight").dimensions = {32, 1ull << 62, 4, 1};
     },
     "tensor output_norm.weight: dimension"},
    {"LargerThanTheFile", [](GgufBuilder& b) { b.Find("output_norm.weight").dimensions = {1ull << 40}; },
     "tensor output_norm.weight of 1 x 1099511627776 elements is larger than the file"},
    {"RowsNotWholeBlocks", [](GgufBuilder& b) { b.Find("blk.0.ffn_down.weight").type = 2; },
     "tensor blk.0.ffn_down.weight has rows of 48 elements, which is not a multiple of the block of 32 elements of "
     "Q4_0"},
    {"RowsNotWholeSuperBlocks", [](GgufBuilder& b) { b.Find("blk.0.attn_q.weight").type = 14; },
     "not a multiple of the block of 256 elements of Q6_K"},
    {"DataMissing", [](GgufBuilder& b) { b.tensors.back().data.resize(100); }, "reaches past the end of the file"},
};

INSTANTIATE_TEST_SUITE_P(All, HostileFileTest, testing::ValuesIn(kHostileFiles),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(TruncatedFileTest, EveryPrefixOfATinyModelIsRefused) {
  const std::string bytes = TinyModel("qwen2").Build();
  for (size_t size = 0; size < bytes.size(); size += size < 9000 ? 1 : 37) {
    // A copy of exactly this size, so that a sanitizer sees a read past its end.
    const std::vector<uint8_t> prefix(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(size));
    const auto file = GgufFile::Parse("cut.gguf", prefix);
    ASSERT_FALSE(file.ok()) << size;
    ASSERT_EQ(file.status().message().substr(0, 10), "cut.gguf: ") << size;
  }
}

TEST(TruncatedFileTest, TheRealHeaderCutAtHundredsOfPlacesIsRefused) {
  const std::string path = test::ModelPath("SmolLM2-135M-Instruct.Q4_1.gguf");
  constexpr size_t kHeaderBytes = 1785664;
  std::string header(kHeaderBytes, '\0');
  ASSERT_TRUE(std::ifstream(path, std::ios::binary).read(header.data(), kHeaderBytes));
  for (int i = 0; i < 400; ++i) {
    const size_t size = i < 100 ? static_cast<size_t>(i) * 23 : kHeaderBytes / 300 * static_cast<size_t>(i - 100);
    const std::vector<uint8_t> prefix(header.begin(), header.begin() + static_cast<ptrdiff_t>(size));
    const auto file = GgufFile::Parse("cut.gguf", prefix);
    ASSERT_FALSE(file.ok()) << size;
    ASSERT_EQ(file.status().code(), absl::StatusCode::kDataLoss) << size << ": " << file.status();
  }
}

TEST(CorruptedFileTest, AnyByteChangedIsReadOrRefusedButNeverBelievedBlindly) {
  const std::string original = TinyModel("llama").Build();
  const size_t header = original.size() - 4 * 32 * 260;  // most of the rest is weights
  int refused = 0;
  for (size_t at = 0; at < std::min<size_t>(header, 9000); ++at) {
    for (const char value : {'\0', '\x7f', '\xff'}) {
      std::vector<uint8_t> bytes(original.begin(), original.end());
      bytes[at] = static_cast<uint8_t>(value);
      const auto file = GgufFile::Parse("f", bytes);
      if (!file.ok()) {
        ++refused;
        continue;
      }
      for (const TensorView& tensor : (*file)->tensors()) {
        ASSERT_GE(tensor.data, bytes.data());
        ASSERT_LE(tensor.data + tensor.bytes(), bytes.data() + bytes.size());
      }
    }
  }
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace tidepool
