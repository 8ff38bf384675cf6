#pragma once

// A JSON value: config.json, state and what the commands print. The text is read by nlohmann-json
// (json.cc, the only file that includes it), whose exceptions and compile time stay there.

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"

namespace oci {

class Json {
 public:
  using Array = std::vector<Json>;
  using Member = std::pair<std::string, Json>;
  using Object = std::vector<Member>;  // In the order of the text.

  Json() : value_(nullptr) {}
  Json(bool value) : value_(value) {}                           // NOLINT
  Json(int value) : value_(int64_t{value}) {}                   // NOLINT
  Json(int64_t value) : value_(value) {}                        // NOLINT
  Json(uint64_t value) : value_(value) {}                       // NOLINT
  Json(double value) : value_(value) {}                         // NOLINT
  Json(std::string value) : value_(std::move(value)) {}         // NOLINT
  Json(std::string_view value) : value_(std::string(value)) {}  // NOLINT
  Json(const char* value) : value_(std::string(value)) {}       // NOLINT
  Json(const std::vector<std::string>& list);                   // NOLINT
  static Json NewArray() { return Json(Array()); }
  static Json NewObject() { return Json(Object()); }

  // Nesting is bounded. The message says where the text goes wrong.
  static absl::StatusOr<Json> Parse(std::string_view text);
  // `indent` 0: on one line.
  std::string Dump(int indent = 0) const;

  bool is_null() const { return std::holds_alternative<std::nullptr_t>(value_); }
  const bool* boolean() const { return std::get_if<bool>(&value_); }
  const std::string* string() const { return std::get_if<std::string>(&value_); }
  const Array* array() const { return std::get_if<Array>(&value_); }
  const Object* object() const { return std::get_if<Object>(&value_); }
  Object* object() { return std::get_if<Object>(&value_); }
  // A number without a fraction that fits; false otherwise.
  bool ToInt64(int64_t* out) const;
  bool ToUint64(uint64_t* out) const;

  // Of an object; null if there is no such member (or this is no object).
  const Json* Find(std::string_view name) const;
  // Makes an object of a null. Replaces a member of that name.
  Json& Set(std::string_view name, Json value);
  Json& Append(Json value);
  // What the value is, for messages: "a string", "an object", ...
  const char* kind() const;

 private:
  friend class JsonBuilder;
  explicit Json(Array value) : value_(std::move(value)) {}
  explicit Json(Object value) : value_(std::move(value)) {}
  void DumpTo(std::string& out, int indent, int depth) const;

  std::variant<std::nullptr_t, bool, int64_t, uint64_t, double, std::string, Array, Object> value_;
};

}  // namespace oci
