// Fields of a checkpoint, one by one.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <c10/util/Exception.h>
#include <c10/util/Type.h>
#include <torch/serialize/archive.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <typeinfo>
#include <vector>

#include <steppe/step/checkpoint.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace checkpoint {

STEPPE_INLINE std::string name_of(const std::type_info& type) {
  const std::string library = "steppe::v";
  std::string name = c10::demangle(type.name());
  for (size_t at = name.find(library); at != std::string::npos; at = name.find(library, at + 1)) {
    const size_t version = at + library.size() - 1, end = name.find_first_not_of("v0123456789_", version);
    if (end != std::string::npos && name.compare(end, 2, "::") == 0) name.erase(version, end + 2 - version);
  }
  return name;
}

STEPPE_INLINE std::string written_type(torch::serialize::InputArchive& archive, const std::string& name) {
  c10::IValue written;
  return archive.try_read(name + "/type", written) && written.isString() ? written.toStringRef() : std::string();
}

STEPPE_INLINE Writer Writer::within(std::string_view name) const {
  return Writer(archive_, prefix_ + std::string(name) + "/");
}

STEPPE_INLINE void Writer::put(std::string_view name, const c10::IValue& value) {
  archive_.write(prefix_ + std::string(name), value);
}

STEPPE_INLINE void Writer::put(std::string_view name, const at::Tensor& value) {
  if (value.defined()) archive_.write(prefix_ + std::string(name), value, /*is_buffer=*/true);
}

STEPPE_INLINE void Writer::put(std::string_view name, const std::vector<at::Tensor>& values) {
  Writer list = within(name);
  list.put("size", c10::IValue(static_cast<int64_t>(values.size())));
  for (size_t i = 0; i < values.size(); ++i) list.put(std::to_string(i), values[i]);
}

STEPPE_INLINE Reader Reader::within(std::string_view name) const {
  return Reader(archive_, prefix_ + std::string(name) + "/");
}

STEPPE_INLINE c10::IValue Reader::get(std::string_view name, bool (c10::IValue::*is_expected)() const) {
  const std::string key = prefix_ + std::string(name);
  c10::IValue value;
  TORCH_CHECK(archive_.try_read(key, value) && (value.*is_expected)(), "steppe: the checkpoint has no valid '", key,
              "'; it is damaged, or was written by another version");
  return value;
}

STEPPE_INLINE bool Reader::get_bool(std::string_view name) { return get(name, &c10::IValue::isBool).toBool(); }
STEPPE_INLINE int64_t Reader::get_int(std::string_view name) { return get(name, &c10::IValue::isInt).toInt(); }
STEPPE_INLINE double Reader::get_double(std::string_view name) { return get(name, &c10::IValue::isDouble).toDouble(); }
STEPPE_INLINE std::string Reader::get_string(std::string_view name) {
  return get(name, &c10::IValue::isString).toStringRef();
}

STEPPE_INLINE at::Tensor Reader::get_tensor(std::string_view name) {
  at::Tensor value;
  archive_.try_read(prefix_ + std::string(name), value, /*is_buffer=*/true);
  return value;
}

STEPPE_INLINE std::vector<at::Tensor> Reader::get_tensors(std::string_view name) {
  constexpr int64_t kMostTensors = 1 << 20;
  Reader list = within(name);
  const int64_t size = list.get_int("size");
  TORCH_CHECK(size >= 0 && size <= kMostTensors, "steppe: the checkpoint has no valid '", prefix_, name,
              "': it would hold ", size, " tensors; it is damaged");
  std::vector<at::Tensor> values(static_cast<size_t>(size));
  for (size_t i = 0; i < values.size(); ++i) values[i] = list.get_tensor(std::to_string(i));
  return values;
}

}  // namespace checkpoint
STEPPE_NAMESPACE_END
