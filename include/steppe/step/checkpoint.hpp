// Writes and reads options by name, so that each class lists its fields once.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <c10/util/Exception.h>
#include <c10/util/Type.h>
#include <torch/serialize/archive.h>

#include <cstdint>
#include <string>
#include <type_traits>
#include <typeinfo>
#include <utility>
#include <vector>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace checkpoint {

class Writer;

template <class T, class Fields, class = void>
struct HasFields : std::false_type {};
template <class T, class Fields>
struct HasFields<T, Fields, std::void_t<decltype(std::declval<T&>().fields(std::declval<Fields&>()))>>
    : std::true_type {};

/// A type by its name, without the library's version.
template <class T>
std::string name_of() {
  const std::string library = "steppe::v";
  std::string name = c10::demangle(typeid(T).name());
  for (size_t at = name.find(library); at != std::string::npos; at = name.find(library, at + 1)) {
    const size_t version = at + library.size() - 1, end = name.find_first_not_of("v0123456789_", version);
    if (end != std::string::npos && name.compare(end, 2, "::") == 0) name.erase(version, end + 2 - version);
  }
  return name;
}

/// Writes numbers, flags, enumerations, strings, tensors, lists of tensors, and classes that have
/// `template <class Fields> void fields(Fields& field)`.
class Writer {
 public:
  explicit Writer(torch::serialize::OutputArchive& archive, std::string prefix = "")
      : archive_(archive), prefix_(std::move(prefix)) {}

  template <class T>
  void operator()(const std::string& name, const T& value) {
    const std::string key = prefix_ + name;
    if constexpr (std::is_enum_v<T>) {
      archive_.write(key, c10::IValue(static_cast<int64_t>(value)));
    } else if constexpr (std::is_same_v<T, at::Tensor>) {
      if (value.defined()) archive_.write(key, value, /*is_buffer=*/true);
    } else if constexpr (std::is_same_v<T, std::vector<at::Tensor>>) {
      archive_.write(key + "/size", c10::IValue(static_cast<int64_t>(value.size())));
      for (size_t i = 0; i < value.size(); ++i) (*this)(name + "/" + std::to_string(i), value[i]);
    } else if constexpr (HasFields<T, Writer>::value) {
      Writer nested(archive_, key + "/");
      T(value).fields(nested);
    } else {
      archive_.write(key, c10::IValue(value));
    }
  }

 private:
  torch::serialize::OutputArchive& archive_;
  std::string prefix_;
};

/// Reads what a Writer wrote; a missing or ill-typed field is an error that names it.
class Reader {
 public:
  explicit Reader(torch::serialize::InputArchive& archive, std::string prefix = "")
      : archive_(archive), prefix_(std::move(prefix)) {}

  template <class T>
  void operator()(const std::string& name, T& value) {
    const std::string key = prefix_ + name;
    if constexpr (std::is_enum_v<T>) {
      value = static_cast<T>(read(key, &c10::IValue::isInt).toInt());
    } else if constexpr (std::is_same_v<T, bool>) {
      value = read(key, &c10::IValue::isBool).toBool();
    } else if constexpr (std::is_integral_v<T>) {
      value = static_cast<T>(read(key, &c10::IValue::isInt).toInt());
    } else if constexpr (std::is_floating_point_v<T>) {
      value = static_cast<T>(read(key, &c10::IValue::isDouble).toDouble());
    } else if constexpr (std::is_same_v<T, std::string>) {
      value = read(key, &c10::IValue::isString).toStringRef();
    } else if constexpr (std::is_same_v<T, at::Tensor>) {
      value = at::Tensor();
      archive_.try_read(key, value, /*is_buffer=*/true);
    } else if constexpr (std::is_same_v<T, std::vector<at::Tensor>>) {
      const int64_t size = read(key + "/size", &c10::IValue::isInt).toInt();
      TORCH_CHECK(size >= 0 && size <= kMostTensors, "steppe: the checkpoint has no valid '", key, "': it would hold ",
                  size, " tensors; it is damaged");
      value.resize(static_cast<size_t>(size));
      for (size_t i = 0; i < value.size(); ++i) (*this)(name + "/" + std::to_string(i), value[i]);
    } else {
      Reader nested(archive_, key + "/");
      value.fields(nested);
    }
  }

 private:
  static constexpr int64_t kMostTensors = 1 << 20;

  c10::IValue read(const std::string& key, bool (c10::IValue::*is_expected)() const) {
    c10::IValue value;
    TORCH_CHECK(archive_.try_read(key, value) && (value.*is_expected)(), "steppe: the checkpoint has no valid '", key,
                "'; it is damaged, or was written by another version");
    return value;
  }

  torch::serialize::InputArchive& archive_;
  std::string prefix_;
};

}  // namespace checkpoint
STEPPE_NAMESPACE_END
