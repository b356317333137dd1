// Writes and reads options by name, so that each class lists its fields once.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <torch/serialize/archive.h>

#include <cstdint>
#include <string>
#include <string_view>
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
std::string name_of(const std::type_info& type);
template <class T>
std::string name_of() {
  return name_of(typeid(T));
}

/// The type that was written at `name`; empty where none was.
std::string written_type(torch::serialize::InputArchive& archive, const std::string& name);

/// Writes numbers, flags, enumerations, strings, tensors, lists of tensors, and classes that have
/// `template <class Fields> void fields(Fields& field)`.
class Writer {
 public:
  explicit Writer(torch::serialize::OutputArchive& archive, std::string prefix = "")
      : archive_(archive), prefix_(std::move(prefix)) {}

  template <class T>
  void operator()(std::string_view name, const T& value) {
    if constexpr (std::is_same_v<T, at::Tensor> || std::is_same_v<T, std::vector<at::Tensor>>) {
      put(name, value);
    } else if constexpr (HasFields<T, Writer>::value) {
      Writer nested = within(name);
      T(value).fields(nested);
    } else if constexpr (std::is_enum_v<T>) {
      put(name, c10::IValue(static_cast<int64_t>(value)));
    } else {
      put(name, c10::IValue(value));
    }
  }

 private:
  Writer within(std::string_view name) const;
  void put(std::string_view name, const c10::IValue& value);
  void put(std::string_view name, const at::Tensor& value);
  void put(std::string_view name, const std::vector<at::Tensor>& values);

  torch::serialize::OutputArchive& archive_;
  std::string prefix_;
};

/// Reads what a Writer wrote; a missing or ill-typed field is an error that names it.
class Reader {
 public:
  explicit Reader(torch::serialize::InputArchive& archive, std::string prefix = "")
      : archive_(archive), prefix_(std::move(prefix)) {}

  template <class T>
  void operator()(std::string_view name, T& value) {
    if constexpr (std::is_same_v<T, bool>) {
      value = get_bool(name);
    } else if constexpr (std::is_enum_v<T> || std::is_integral_v<T>) {
      value = static_cast<T>(get_int(name));
    } else if constexpr (std::is_floating_point_v<T>) {
      value = static_cast<T>(get_double(name));
    } else if constexpr (std::is_same_v<T, std::string>) {
      value = get_string(name);
    } else if constexpr (std::is_same_v<T, at::Tensor>) {
      value = get_tensor(name);
    } else if constexpr (std::is_same_v<T, std::vector<at::Tensor>>) {
      value = get_tensors(name);
    } else {
      Reader nested = within(name);
      value.fields(nested);
    }
  }

 private:
  Reader within(std::string_view name) const;
  bool get_bool(std::string_view name);
  int64_t get_int(std::string_view name);
  double get_double(std::string_view name);
  std::string get_string(std::string_view name);
  at::Tensor get_tensor(std::string_view name);
  std::vector<at::Tensor> get_tensors(std::string_view name);
  c10::IValue get(std::string_view name, bool (c10::IValue::*is_expected)() const);

  torch::serialize::InputArchive& archive_;
  std::string prefix_;
};

}  // namespace checkpoint
STEPPE_NAMESPACE_END

#ifndef STEPPE_COMPILED
#include <steppe/step/checkpoint.ipp>
#endif
