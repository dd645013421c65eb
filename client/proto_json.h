// Messages as JSON for scripts: names of fields and enum values as in the protocol, all integers as numbers (the
// standard mapping writes 64-bit ones as strings), fields with their defaults written too, unset messages and optional
// fields left out.
#ifndef TIDEPOOL_CLIENT_PROTO_JSON_H_
#define TIDEPOOL_CLIENT_PROTO_JSON_H_

#include <string>

#include "google/protobuf/message.h"

namespace tidepool::client {

// One line without its newline, always valid UTF-8.
std::string ToJson(const google::protobuf::Message& message);

}  // namespace tidepool::client

#endif  // TIDEPOOL_CLIENT_PROTO_JSON_H_
