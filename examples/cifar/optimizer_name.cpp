// SPDX-License-Identifier: MIT
#include "optimizer_name.hpp"

#include <algorithm>
#include <stdexcept>

namespace cifar {
namespace {

using Names = std::vector<std::string>;

std::string list_of(const Names& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

bool contains(const Names& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// Methods that every base has.
const Names& everywhere() {
  static const Names names = {"sam", "asam", "zsharp", "gcsam", "gczsharp", "tail", "every"};
  return names;
}

/// Methods of every base that evaluates its closure once a step: they remember something from step to step.
const Names& once_a_step() {
  static const Names names = {"das", "msam", "looksam"};
  return names;
}

}  // namespace

const Names& base_names() {
  static const Names names = {"sgd", "adam", "adamw", "rmsprop", "adagrad", "lbfgs"};
  return names;
}

const Names& method_names() {
  static const Names names = {"sam",   "asam", "zsharp", "gcsam",   "gczsharp",  "das",       "tail",
                              "every", "msam", "s2sam",  "looksam", "aesam",     "aelooksam", "friendly",
                              "vasso", "ssam", "gsam",   "wsam",    "stablesam", "xsam"};
  return names;
}

const Names& bases_of(const std::string& method) {
  // Fewer for the other bases, only because each pair takes seconds to compile.
  static const Names without_lbfgs(base_names().begin(), base_names().end() - 1), common = {"sgd", "adam", "adamw"};
  if (contains(everywhere(), method)) return base_names();
  return contains(once_a_step(), method) ? without_lbfgs : common;
}

int64_t OptimizerName::interval(int64_t asked) const {
  if (method == "looksam") return asked > 0 ? asked : 5;
  if (method == "every") return asked > 0 ? asked : 10;
  return 1;
}

double OptimizerName::gradients(int64_t asked_interval, double tail_share) const {
  if (method.empty() || method == "das" || perturbs_before_its_pass()) return 1.0;
  if (method == "tail") return 1.0 + tail_share;
  if (method == "aesam" || method == "aelooksam") return 1.5;
  return 1.0 + 1.0 / static_cast<double>(interval(asked_interval));
}

void OptimizerName::check() const {
  if (method.empty() || contains(bases_of(method), base)) return;
  const bool works_several_times_a_step = method == "gsam" || method == "stablesam";
  if (base == "lbfgs" && !works_several_times_a_step)
    throw std::runtime_error(method + " needs a base that evaluates its closure once a step, which lbfgs does not");
  throw std::runtime_error("'" + base + "+" + method + "' is not built in: " + method + " goes with " +
                           list_of(bases_of(method)));
}

OptimizerName OptimizerName::parse(const std::string& text) {
  const size_t plus = text.find('+');
  if (plus == std::string::npos && contains(base_names(), text)) return {text, ""};
  if (plus == std::string::npos && contains(method_names(), text)) return {"sgd", text};
  if (plus != std::string::npos) {
    OptimizerName name{text.substr(0, plus), text.substr(plus + 1)};
    if (contains(base_names(), name.base) && contains(method_names(), name.method)) {
      name.check();
      return name;
    }
  }
  throw std::runtime_error("there is no optimizer '" + text + "'; choose a base (" + list_of(base_names()) +
                           "), a method over sgd (" + list_of(method_names()) + "), or both as in adam+zsharp");
}

}  // namespace cifar
