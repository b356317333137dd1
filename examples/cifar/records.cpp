// SPDX-License-Identifier: MIT
#include "records.hpp"

#include <algorithm>
#include <iterator>
#include <sstream>
#include <stdexcept>

#include "optimizer_name.hpp"

namespace cifar {
namespace {

template <class Value>
std::string written(const Value& value) {
  std::ostringstream text;
  text.precision(17);
  text << value;
  return text.str();
}

void assign(std::string& value, const std::string&, const std::string& text) { value = text; }

template <class Value>
void assign(Value& value, const std::string& name, const std::string& text) {
  std::istringstream in(text);
  if (!(in >> value) || in.peek() != std::istringstream::traits_type::eof())
    throw std::runtime_error("its " + name + " is '" + text + "'");
}

/// Every name with its member, for writing and for reading.
template <class Settings, class Visit>
void for_each_field(Settings& run, const Visit& visit) {
  visit("data", run.dataset);
  visit("model", run.model);
  visit("optimizer", run.optimizer);
  visit("schedule", run.schedule);
  visit("train-size", run.train_size);
  visit("test-size", run.test_size);
  visit("label-noise", run.label_noise);
  visit("augment", run.augment);
  visit("epochs", run.epochs);
  visit("batch-size", run.batch_size);
  visit("warm-up", run.warm_up);
  visit("lr", run.learning_rate);
  visit("momentum", run.momentum);
  visit("weight-decay", run.weight_decay);
  visit("rho", run.rho);
  visit("percentile", run.percentile);
  visit("seed", run.seed);
  visit("evaluate-every", run.evaluate_every);
  visit("sharpness-rho", run.sharpness_rho);
  visit("tensorize", run.tensorize);
  visit("compression", run.compression);
  visit("alpha", run.alpha);
  visit("plain-loop", run.plain_loop);
  visit("interval", run.interval);
  visit("tail-share", run.tail_share);
  visit("average", run.average);
  visit("average-decay", run.average_decay);
  visit("fused", run.fused);
}

/// Older checkpoints, which do not have it, are read as well.
bool may_be_absent(const std::string& name) {
  const char* const younger[] = {"plain-loop", "interval", "tail-share", "average", "average-decay", "fused"};
  return std::find(std::begin(younger), std::end(younger), name) != std::end(younger);
}

}  // namespace

double RunSettings::planned_gradients() const {
  return OptimizerName::parse(optimizer).gradients(interval, tail_share);
}

RunSettings RunSettings::read(const std::function<std::optional<std::string>(const std::string&)>& text_of) {
  RunSettings run;
  for_each_field(run, [&](const char* name, auto& value) {
    const std::optional<std::string> text = text_of(name);
    if (text) return assign(value, name, *text);
    if (!may_be_absent(name)) throw std::runtime_error(std::string("it has no ") + name);
  });
  return run;
}

std::vector<std::pair<std::string, std::string>> RunSettings::fields() const {
  std::vector<std::pair<std::string, std::string>> all;
  for_each_field(*this, [&](const char* name, const auto& value) { all.emplace_back(name, written(value)); });
  return all;
}

}  // namespace cifar
