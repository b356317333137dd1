// Anything that torch::save and torch::load take, as text.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/ivalue.h>
#include <torch/serialize.h>
#include <torch/serialize/archive.h>

#include <sstream>
#include <string>

namespace steppe {

template <class Value>
std::string saved(const Value& value) {
  std::ostringstream stream;
  torch::save(value, stream);
  return stream.str();
}

template <class Value>
void load(Value& value, const std::string& text) {
  std::istringstream stream(text);
  torch::load(value, stream);
}

/// The fields of a checkpoint, one of them with another value, or without it.
inline std::string with_other_field(const std::string& file, const std::string& name, const c10::IValue& other) {
  torch::serialize::InputArchive in;
  std::istringstream stream(file);
  in.load_from(stream);
  torch::serialize::OutputArchive out;
  for (const std::string& key : in.keys()) {
    c10::IValue value;
    in.read(key, value);
    if (key == name) value = other;
    if (value.isTensor())
      out.write(key, value.toTensor(), /*is_buffer=*/true);
    else if (!value.isNone())
      out.write(key, value);
  }
  std::ostringstream changed;
  out.save_to(changed);
  return changed.str();
}

}  // namespace steppe
