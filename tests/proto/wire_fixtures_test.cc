// The bytes of every message on the wire, kept as they were: a field that is renumbered, retyped or dropped fails here.
// TIDEPOOL_UPDATE_GOLDEN=1 rewrites wire_fixtures.json; lines that change, not only appear, break peers of older
// builds.
#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/message.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "tests/support/paths.h"
#include "tidepool/v1/cache_admin.pb.h"
#include "tidepool/v1/cache_store.pb.h"
#include "tidepool/v1/common.pb.h"
#include "tidepool/v1/generation.pb.h"

namespace tidepool {
namespace {

namespace pb = google::protobuf;
using Json = nlohmann::ordered_json;

constexpr char kFixtures[] = TIDEPOOL_SOURCE_DIR "/tests/proto/wire_fixtures.json";

std::vector<const pb::FileDescriptor*> Files() {
  return {v1::KvShape::descriptor()->file(), v1::LookupRequest::descriptor()->file(),
          v1::GetStatsRequest::descriptor()->file(), v1::GenerateRequest::descriptor()->file()};
}

void AddMessages(const pb::Descriptor* message, std::vector<const pb::Descriptor*>* all) {
  if (message->options().map_entry()) return;
  all->push_back(message);
  for (int i = 0; i < message->nested_type_count(); ++i) AddMessages(message->nested_type(i), all);
}

std::vector<const pb::Descriptor*> Messages() {
  std::vector<const pb::Descriptor*> all;
  for (const pb::FileDescriptor* file : Files()) {
    for (int i = 0; i < file->message_type_count(); ++i) AddMessages(file->message_type(i), &all);
  }
  return all;
}

std::unique_ptr<pb::Message> Make(const pb::Descriptor* descriptor) {
  return std::unique_ptr<pb::Message>(pb::MessageFactory::generated_factory()->GetPrototype(descriptor)->New());
}

std::string Bytes(const pb::Message& message) {
  std::string bytes;
  pb::io::StringOutputStream out(&bytes);
  pb::io::CodedOutputStream coded(&out);
  coded.SetSerializationDeterministic(true);
  message.SerializeToCodedStream(&coded);
  coded.Trim();
  return bytes;
}

std::string Text(const pb::Message& message) {
  pb::TextFormat::Printer printer;
  printer.SetSingleLineMode(true);
  std::string text;
  printer.PrintToString(message, &text);
  while (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

// --- Making fixtures ------------------------------------------------------------------------------------------------

void Fill(pb::Message& message, int alternative);

void FillField(pb::Message& message, const pb::FieldDescriptor* field, int salt) {
  const pb::Reflection* at = message.GetReflection();
  const int n = field->number() * 10 + salt;
  const bool many = field->is_repeated();
  switch (field->cpp_type()) {
    case pb::FieldDescriptor::CPPTYPE_INT32:
      many ? at->AddInt32(&message, field, n) : at->SetInt32(&message, field, n);
      break;
    case pb::FieldDescriptor::CPPTYPE_INT64:
      many ? at->AddInt64(&message, field, n) : at->SetInt64(&message, field, n);
      break;
    case pb::FieldDescriptor::CPPTYPE_UINT32:
      many ? at->AddUInt32(&message, field, n) : at->SetUInt32(&message, field, n);
      break;
    case pb::FieldDescriptor::CPPTYPE_UINT64:
      many ? at->AddUInt64(&message, field, n) : at->SetUInt64(&message, field, n);
      break;
    case pb::FieldDescriptor::CPPTYPE_FLOAT:
      many ? at->AddFloat(&message, field, n / 4.0f) : at->SetFloat(&message, field, n / 4.0f);
      break;
    case pb::FieldDescriptor::CPPTYPE_DOUBLE:
      many ? at->AddDouble(&message, field, n / 4.0) : at->SetDouble(&message, field, n / 4.0);
      break;
    case pb::FieldDescriptor::CPPTYPE_BOOL:
      many ? at->AddBool(&message, field, true) : at->SetBool(&message, field, true);
      break;
    case pb::FieldDescriptor::CPPTYPE_ENUM: {
      const pb::EnumDescriptor* type = field->enum_type();
      const pb::EnumValueDescriptor* last = type->value(type->value_count() - 1);
      many ? at->AddEnum(&message, field, last) : at->SetEnum(&message, field, last);
      break;
    }
    case pb::FieldDescriptor::CPPTYPE_STRING: {
      const std::string text = absl::StrCat("f", n);
      many ? at->AddString(&message, field, text) : at->SetString(&message, field, text);
      break;
    }
    case pb::FieldDescriptor::CPPTYPE_MESSAGE:
      Fill(many ? *at->AddMessage(&message, field) : *at->MutableMessage(&message, field), 0);
      break;
  }
}

// Every field, and of each oneof the member `alternative`, or the first when there is none of that number.
void Fill(pb::Message& message, int alternative) {
  const pb::Descriptor* type = message.GetDescriptor();
  for (int i = 0; i < type->field_count(); ++i) {
    const pb::FieldDescriptor* field = type->field(i);
    if (const pb::OneofDescriptor* oneof = field->real_containing_oneof(); oneof != nullptr) {
      const int chosen = alternative < oneof->field_count() ? alternative : 0;
      if (field->index_in_oneof() != chosen) continue;
    }
    FillField(message, field, 0);
    if (field->is_repeated() && !field->is_map()) FillField(message, field, 1);
  }
}

int Alternatives(const pb::Descriptor* type) {
  int most = 1;
  for (int i = 0; i < type->real_oneof_decl_count(); ++i) most = std::max(most, type->oneof_decl(i)->field_count());
  return most;
}

// Name, number, label and type of what bytes alone do not show: enums and methods.
Json Shapes() {
  Json shapes;
  for (const pb::FileDescriptor* file : Files()) {
    auto add_enum = [&shapes](const pb::EnumDescriptor* type) {
      for (int v = 0; v < type->value_count(); ++v)
        shapes[type->full_name()][type->value(v)->name()] = type->value(v)->number();
    };
    for (int i = 0; i < file->enum_type_count(); ++i) add_enum(file->enum_type(i));
    for (const pb::Descriptor* message : Messages()) {
      if (message->file() != file) continue;
      for (int i = 0; i < message->enum_type_count(); ++i) add_enum(message->enum_type(i));
    }
    for (int i = 0; i < file->service_count(); ++i) {
      for (int m = 0; m < file->service(i)->method_count(); ++m) {
        const pb::MethodDescriptor* method = file->service(i)->method(m);
        shapes[file->service(i)->full_name()][method->name()] =
            absl::StrCat(method->client_streaming() ? "stream " : "", method->input_type()->name(), " -> ",
                         method->server_streaming() ? "stream " : "", method->output_type()->name());
      }
    }
  }
  return shapes;
}

Json MakeFixtures() {
  Json fixtures = Json::array();
  for (const pb::Descriptor* type : Messages()) {
    for (int alternative = 0; alternative < Alternatives(type); ++alternative) {
      const std::unique_ptr<pb::Message> message = Make(type);
      Fill(*message, alternative);
      fixtures.push_back(
          {{"message", type->full_name()}, {"text", Text(*message)}, {"hex", absl::BytesToHexString(Bytes(*message))}});
    }
  }
  return fixtures;
}

// --- Holding to them ------------------------------------------------------------------------------------------------

class WireFixturesTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    const char* update = std::getenv("TIDEPOOL_UPDATE_GOLDEN");
    if (update == nullptr || std::string(update) != "1") return;
    const Json golden = {{"shapes", Shapes()}, {"fixtures", MakeFixtures()}};
    std::ofstream(kFixtures) << golden.dump(1) << "\n";
  }
  WireFixturesTest() : golden_(Json::parse(test::ReadFile(kFixtures))) {}

  static const pb::Descriptor* Find(const std::string& name) {
    return pb::DescriptorPool::generated_pool()->FindMessageTypeByName(name);
  }

  const Json golden_;
};

TEST_F(WireFixturesTest, OldBytesAreReadAsTheyWereMeant) {
  for (const Json& fixture : golden_["fixtures"]) {
    const std::string name = fixture["message"];
    const pb::Descriptor* type = Find(name);
    ASSERT_NE(type, nullptr) << name << " is gone";
    const std::unique_ptr<pb::Message> message = Make(type);
    ASSERT_TRUE(message->ParseFromString(absl::HexStringToBytes(fixture["hex"].get<std::string>()))) << name;
    EXPECT_EQ(Text(*message), fixture["text"].get<std::string>()) << name;
  }
}

TEST_F(WireFixturesTest, MessagesAreWrittenToTheOldBytes) {
  for (const Json& fixture : golden_["fixtures"]) {
    const std::string name = fixture["message"];
    const pb::Descriptor* type = Find(name);
    ASSERT_NE(type, nullptr) << name << " is gone";
    const std::unique_ptr<pb::Message> message = Make(type);
    ASSERT_TRUE(pb::TextFormat::ParseFromString(fixture["text"].get<std::string>(), message.get())) << name;
    EXPECT_EQ(absl::BytesToHexString(Bytes(*message)), fixture["hex"].get<std::string>()) << name;
  }
}

TEST_F(WireFixturesTest, EveryFieldOfEveryMessageIsInAFixture) {
  std::set<std::string> seen_messages, seen_fields;
  for (const Json& fixture : golden_["fixtures"]) {
    const pb::Descriptor* type = Find(fixture["message"]);
    ASSERT_NE(type, nullptr);
    const std::unique_ptr<pb::Message> message = Make(type);
    ASSERT_TRUE(message->ParseFromString(absl::HexStringToBytes(fixture["hex"].get<std::string>())));
    seen_messages.insert(type->full_name());
    std::vector<const pb::FieldDescriptor*> fields;
    message->GetReflection()->ListFields(*message, &fields);
    for (const pb::FieldDescriptor* field : fields) seen_fields.insert(field->full_name());
  }
  for (const pb::Descriptor* type : Messages()) {
    EXPECT_TRUE(seen_messages.contains(type->full_name())) << type->full_name() << ": TIDEPOOL_UPDATE_GOLDEN=1 adds it";
    for (int i = 0; i < type->field_count(); ++i) {
      EXPECT_TRUE(seen_fields.contains(type->field(i)->full_name())) << type->field(i)->full_name();
    }
  }
}

TEST_F(WireFixturesTest, EnumsAndMethodsAreAsTheyWere) { EXPECT_EQ(Shapes().dump(1), golden_["shapes"].dump(1)); }

TEST_F(WireFixturesTest, EnumsStartAtUnspecified) {
  for (const auto& [name, values] : golden_["shapes"].items()) {
    const pb::EnumDescriptor* type = pb::DescriptorPool::generated_pool()->FindEnumTypeByName(name);
    if (type == nullptr) continue;  // a service
    EXPECT_EQ(type->value(0)->number(), 0) << name;
    EXPECT_TRUE(type->value(0)->name().ends_with("_UNSPECIFIED")) << name;
  }
}

}  // namespace
}  // namespace tidepool
