#include "runsc-cli/oci/json.h"

#include <cmath>
#include <cstdio>
#include <limits>
#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace oci {
namespace {

constexpr size_t kDepthMax = 64;

void DumpString(std::string& out, std::string_view text) {
  out += '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (static_cast<unsigned char>(c) < ' ') {
      char escape[8];
      snprintf(escape, sizeof(escape), "\\u%04x", static_cast<unsigned>(c));
      out += escape;
    } else {
      out += c;
    }
  }
  out += '"';
}

}  // namespace

// Collects what nlohmann's parser reports, value by value.
class JsonBuilder : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool null() override { return Add(Json()); }
  bool boolean(bool value) override { return Add(Json(value)); }
  bool number_integer(number_integer_t value) override { return Add(Json(int64_t{value})); }
  bool number_unsigned(number_unsigned_t value) override { return Add(Json(uint64_t{value})); }
  bool number_float(number_float_t value, const string_t&) override { return Add(Json(value)); }
  bool string(string_t& value) override { return Add(Json(std::move(value))); }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override { return Open(Json::NewObject()); }
  bool start_array(size_t) override { return Open(Json::NewArray()); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }
  bool key(string_t& name) override {
    keys_.back() = std::move(name);
    return true;
  }
  bool parse_error(size_t position, const std::string& token,
                   const nlohmann::json::exception& error) override {
    (void)error;
    error_ =
        absl::StrCat("not JSON at byte ", position,
                     token.empty() ? "" : absl::StrCat(" (near \"", token.substr(0, 40), "\")"));
    return false;
  }

  Json root_;
  std::string error_;

 private:
  bool Add(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
    } else if (open_.back().array() != nullptr) {
      open_.back().Append(std::move(value));
    } else {
      open_.back().Set(keys_.back(), std::move(value));
    }
    return true;
  }
  bool Open(Json value) {
    if (open_.size() >= kDepthMax) {
      error_ = absl::StrCat("nested deeper than ", kDepthMax, " levels");
      return false;
    }
    open_.push_back(std::move(value));
    keys_.emplace_back();
    return true;
  }
  bool Close() {
    Json done = std::move(open_.back());
    open_.pop_back();
    keys_.pop_back();
    return Add(std::move(done));
  }

  std::vector<Json> open_;
  std::vector<std::string> keys_;
};

Json::Json(const std::vector<std::string>& list) : value_(Array(list.begin(), list.end())) {}

absl::StatusOr<Json> Json::Parse(std::string_view text) {
  JsonBuilder builder;
  if (!nlohmann::json::sax_parse(text.begin(), text.end(), &builder)) {
    return absl::InvalidArgumentError(builder.error_.empty() ? "not JSON" : builder.error_);
  }
  return std::move(builder.root_);
}

bool Json::ToInt64(int64_t* out) const {
  if (const auto* value = std::get_if<int64_t>(&value_)) {
    *out = *value;
    return true;
  }
  if (const auto* value = std::get_if<uint64_t>(&value_)) {
    *out = static_cast<int64_t>(*value);
    return *value <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  }
  if (const auto* value = std::get_if<double>(&value_)) {
    if (std::abs(*value) > 9e15 || std::floor(*value) != *value) return false;
    *out = static_cast<int64_t>(*value);
    return true;
  }
  return false;
}

bool Json::ToUint64(uint64_t* out) const {
  if (const auto* value = std::get_if<uint64_t>(&value_)) {
    *out = *value;
    return true;
  }
  int64_t number = 0;
  if (!ToInt64(&number) || number < 0) return false;
  *out = static_cast<uint64_t>(number);
  return true;
}

const Json* Json::Find(std::string_view name) const {
  if (object() == nullptr) return nullptr;
  for (const Member& member : *object()) {
    if (member.first == name) return &member.second;
  }
  return nullptr;
}

Json& Json::Set(std::string_view name, Json value) {
  if (is_null()) value_ = Object();
  Object& members = std::get<Object>(value_);
  for (Member& member : members) {
    if (member.first == name) return member.second = std::move(value);
  }
  members.emplace_back(std::string(name), std::move(value));
  return members.back().second;
}

Json& Json::Append(Json value) {
  if (is_null()) value_ = Array();
  auto& list = std::get<Array>(value_);
  list.push_back(std::move(value));
  return list.back();
}

const char* Json::kind() const {
  constexpr const char* kNames[] = {"null",     "a boolean", "a number", "a number",
                                    "a number", "a string",  "a list",   "an object"};
  return kNames[value_.index()];
}

std::string Json::Dump(int indent) const {
  std::string out;
  DumpTo(out, indent, 0);
  return out;
}

void Json::DumpTo(std::string& out, int indent, int depth) const {
  const auto line = [&](int level) {
    if (indent == 0) return;
    out += '\n';
    out.append(static_cast<size_t>(indent * level), ' ');
  };
  if (is_null()) {
    out += "null";
  } else if (const bool* flag = boolean()) {
    out += *flag ? "true" : "false";
  } else if (const auto* number = std::get_if<int64_t>(&value_)) {
    absl::StrAppend(&out, *number);
  } else if (const auto* big = std::get_if<uint64_t>(&value_)) {
    absl::StrAppend(&out, *big);
  } else if (const auto* real = std::get_if<double>(&value_)) {
    absl::StrAppend(&out, *real);
  } else if (string() != nullptr) {
    DumpString(out, *string());
  } else if (array() != nullptr) {
    out += '[';
    for (size_t i = 0; i < array()->size(); ++i) {
      if (i != 0) out += ',';
      line(depth + 1);
      (*array())[i].DumpTo(out, indent, depth + 1);
    }
    if (!array()->empty()) line(depth);
    out += ']';
  } else {
    out += '{';
    for (size_t i = 0; i < object()->size(); ++i) {
      if (i != 0) out += ',';
      line(depth + 1);
      DumpString(out, (*object())[i].first);
      out += indent == 0 ? ":" : ": ";
      (*object())[i].second.DumpTo(out, indent, depth + 1);
    }
    if (!object()->empty()) line(depth);
    out += '}';
  }
}

}  // namespace oci
