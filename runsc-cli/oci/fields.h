#pragma once

// Reads the members of a JSON object into typed variables and remembers the first thing that is
// wrong, with the name of the field as a user finds it in the file: `linux.resources.memory.limit`.

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "platform/base/strings.h"
#include "runsc-cli/oci/json.h"

namespace oci {

class Fields {
 public:
  // `error` is shared by all Fields of a document.
  Fields(const Json& object, std::string where, absl::Status& error)
      : object_(object), where_(std::move(where)), error_(error) {
    if (object.object() == nullptr)
      Fail("", absl::StrCat("must be an object, not ", object.kind()));
  }

  bool ok() const { return error_.ok(); }
  void Fail(std::string_view name, const std::string& problem) {
    if (error_.ok()) error_ = absl::InvalidArgumentError(absl::StrCat(NameOf(name), ": ", problem));
  }
  // An error that names its field already.
  void FailWith(absl::Status error) {
    if (error_.ok()) error_ = std::move(error);
  }
  std::string NameOf(std::string_view name) const {
    if (name.empty()) return where_.empty() ? "the document" : where_;
    return where_.empty() ? std::string(name) : absl::StrCat(where_, ".", base::Absl(name));
  }

  void Read(std::string_view name, std::string& out) {
    const Json* const value = Member(name);
    if (value == nullptr) return;
    if (value->string() == nullptr) return Wrong(name, "a string", *value);
    if (value->string()->find('\0') != std::string::npos) {
      return Fail(name, "contains a NUL character");
    }
    out = *value->string();
  }
  void Read(std::string_view name, bool& out) {
    const Json* const value = Member(name);
    if (value == nullptr) return;
    if (value->boolean() == nullptr) return Wrong(name, "true or false", *value);
    out = *value->boolean();
  }
  template <typename T>
    requires std::is_integral_v<T>
  void Read(std::string_view name, T& out) {
    const Json* const value = Member(name);
    if (value == nullptr) return;
    bool fits = false;
    if constexpr (std::is_signed_v<T>) {
      int64_t number = 0;
      fits = value->ToInt64(&number) && number >= std::numeric_limits<T>::min() &&
             number <= std::numeric_limits<T>::max();
      if (fits) out = static_cast<T>(number);
    } else {
      uint64_t number = 0;
      fits = value->ToUint64(&number) && number <= std::numeric_limits<T>::max();
      if (fits) out = static_cast<T>(number);
    }
    if (fits) return;
    Fail(name, absl::StrCat("must be a whole number from ", std::numeric_limits<T>::min(), " to ",
                            std::numeric_limits<T>::max(), ", not ", Shown(*value)));
  }
  template <typename T>
  void Read(std::string_view name, std::optional<T>& out) {
    if (Member(name) == nullptr) return;
    T value{};
    Read(name, value);
    if (ok()) out = std::move(value);
  }
  void Read(std::string_view name, std::vector<std::string>& out) {
    EachItem(name, [&](const std::string& item_name, const Json& item) {
      if (item.string() == nullptr || item.string()->find('\0') != std::string::npos) {
        error_ = absl::InvalidArgumentError(
            absl::StrCat(item_name, ": must be a string, not ", item.kind()));
        return;
      }
      out.push_back(*item.string());
    });
  }
  void Read(std::string_view name, std::vector<uint32_t>& out) {
    EachItem(name, [&](const std::string& item_name, const Json& item) {
      uint64_t number = 0;
      if (!item.ToUint64(&number) || number > UINT32_MAX) {
        error_ = absl::InvalidArgumentError(
            absl::StrCat(item_name, ": must be a whole number, not ", Shown(item)));
        return;
      }
      out.push_back(static_cast<uint32_t>(number));
    });
  }
  // An object whose values are strings.
  void Read(std::string_view name, std::vector<std::pair<std::string, std::string>>& out) {
    const Json* const value = Member(name);
    if (value == nullptr) return;
    if (value->object() == nullptr) return Wrong(name, "an object", *value);
    for (const auto& [key, item] : *value->object()) {
      if (item.string() == nullptr)
        return Wrong(absl::StrCat(base::Absl(name), ".", key), "a string", item);
      out.emplace_back(key, *item.string());
    }
  }
  // A member that is an object.
  void In(std::string_view name, const std::function<void(Fields&)>& read) {
    const Json* const value = Member(name);
    if (value == nullptr) return;
    Fields fields(*value, NameOf(name), error_);
    if (ok()) read(fields);
  }
  // A member that is a list of objects.
  void Each(std::string_view name, const std::function<void(Fields&)>& read) {
    EachItem(name, [&](const std::string& item_name, const Json& item) {
      Fields fields(item, item_name, error_);
      if (ok()) read(fields);
    });
  }
  bool Has(std::string_view name) { return Member(name) != nullptr; }

 private:
  static std::string Shown(const Json& value) {
    return value.object() != nullptr || value.array() != nullptr ? value.kind() : value.Dump();
  }
  // Null for what is not there or null, and once something was wrong.
  const Json* Member(std::string_view name) const {
    const Json* const value = ok() ? object_.Find(name) : nullptr;
    return value == nullptr || value->is_null() ? nullptr : value;
  }
  void Wrong(std::string_view name, const char* wanted, const Json& value) {
    Fail(name, absl::StrCat("must be ", wanted, ", not ", Shown(value)));
  }
  void EachItem(std::string_view name,
                const std::function<void(const std::string&, const Json&)>& read) {
    const Json* const value = Member(name);
    if (value == nullptr) return;
    if (value->array() == nullptr) return Wrong(name, "a list", *value);
    for (size_t i = 0; i < value->array()->size() && ok(); ++i) {
      read(absl::StrCat(NameOf(name), "[", i, "]"), (*value->array())[i]);
    }
  }

  const Json& object_;
  const std::string where_;
  absl::Status& error_;
};

}  // namespace oci
