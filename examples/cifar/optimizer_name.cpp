// SPDX-License-Identifier: MIT
#include "optimizer_name.hpp"

#include <algorithm>
#include <stdexcept>

namespace cifar {
namespace {

std::string list_of(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

const std::vector<std::string>& base_names() {
  static const std::vector<std::string> names = {"sgd", "adam", "adamw", "rmsprop", "adagrad", "lbfgs"};
  return names;
}

const std::vector<std::string>& method_names() {
  static const std::vector<std::string> names = {"sam", "asam", "zsharp", "gcsam", "gczsharp", "das"};
  return names;
}

OptimizerName OptimizerName::parse(const std::string& text) {
  const size_t plus = text.find('+');
  if (plus == std::string::npos && contains(base_names(), text)) return {text, ""};
  if (plus == std::string::npos && contains(method_names(), text)) return {"sgd", text};
  if (plus != std::string::npos) {
    OptimizerName name{text.substr(0, plus), text.substr(plus + 1)};
    if (contains(base_names(), name.base) && contains(method_names(), name.method)) return name;
  }
  throw std::runtime_error("there is no optimizer '" + text + "'; choose a base (" + list_of(base_names()) +
                           "), a method over sgd (" + list_of(method_names()) + "), or both as in adam+zsharp");
}

}  // namespace cifar
