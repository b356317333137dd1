// A training loop stepped in two ways, and its results.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/Context.h>
#include <gtest/gtest.h>
#include <steppe/optimizers.hpp>
#include <torch/nn/module.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/dropout.h>
#include <torch/nn/modules/linear.h>
#include <torch/types.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace steppe::plain_loops {

/// How an optimizer makes its steps.
enum class Way {
  Closure,  ///< step(closure)
  Plain,    ///< zero_grad(), the passes, step()
};

/// Of a short training, unless a test says otherwise.
constexpr int kSteps = 5;

/// One step. `pass` makes the forward and backward passes and returns the loss.
template <class Optimizer, class Pass>
at::Tensor step(Way way, Optimizer& optimizer, Pass&& pass) {
  if (way == Way::Closure)
    return optimizer.step([&] {
      optimizer.zero_grad();
      return pass();
    });
  optimizer.zero_grad();
  pass();
  return optimizer.step();
}

/// The state of LibTorch's random numbers on the CPU.
inline at::Tensor generator_state() {
  return at::globalContext().defaultGenerator(c10::Device(c10::DeviceType::CPU)).get_state();
}

/// The results of a run, part by part.
class Trace {
 public:
  void add(std::string name, const at::Tensor& value) {
    parts_.emplace_back(std::move(name), value.defined() ? value.detach().clone() : at::Tensor());
  }
  void add(const torch::nn::Module& model) {
    for (const auto& param : model.named_parameters()) add("parameter " + param.key(), param.value());
    for (const auto& buffer : model.named_buffers()) add("buffer " + buffer.key(), buffer.value());
  }
  /// What a step returned and reported.
  void add(const at::Tensor& loss, const Report& report) {
    add("returned loss", loss);
    add("reported loss", report.loss);
    add("sharpness", report.sharpness);
    perturbed_ = perturbed_ || report.perturbed;
  }

  bool perturbed() const { return perturbed_; }

  /// Same bits, part by part.
  friend void expect_same(const Trace& expected, const Trace& seen) {
    ASSERT_EQ(expected.parts_.size(), seen.parts_.size());
    for (size_t i = 0; i < seen.parts_.size(); ++i) {
      const auto& [name, value] = expected.parts_[i];
      const at::Tensor& other = seen.parts_[i].second;
      ASSERT_EQ(name, seen.parts_[i].first);
      ASSERT_EQ(value.defined(), other.defined()) << "part " << i << ", " << name;
      // What follows the first difference differs, too.
      if (!value.defined()) continue;
      ASSERT_TRUE(same_bits(value, other)) << "part " << i << ", " << difference(name, value, other);
    }
  }

 private:
  static at::Tensor dense(const at::Tensor& tensor) {
    return (tensor.is_sparse() ? tensor.to_dense() : tensor).contiguous();
  }
  static bool same_bits(const at::Tensor& a, const at::Tensor& b) {
    if (a.sizes() != b.sizes() || a.dtype() != b.dtype()) return false;
    const at::Tensor x = dense(a), y = dense(b);
    return x.nbytes() == 0 || std::memcmp(x.data_ptr(), y.data_ptr(), x.nbytes()) == 0;
  }
  static std::string difference(const std::string& name, const at::Tensor& a, const at::Tensor& b) {
    if (a.sizes() != b.sizes() || a.dtype() != b.dtype()) return name + " has another shape or type";
    const at::Tensor apart = (dense(a).to(at::kDouble) - dense(b).to(at::kDouble)).abs().max();
    return name + " differs by up to " + std::to_string(apart.item<double>()) + " of " +
           std::to_string(dense(a).to(at::kDouble).abs().max().item<double>());
  }

  std::vector<std::pair<std::string, at::Tensor>> parts_;
  bool perturbed_ = false;
};

/// Runs `program(way)` from the same seed in both ways; it returns its trace.
template <class Program>
void expect_same_in_both_ways(const Program& program) {
  const auto run = [&](Way way) {
    torch::manual_seed(11);
    Trace trace = program(way);
    trace.add("generator", generator_state());
    return trace;
  };
  const Trace expected = run(Way::Closure);
  const Trace seen = run(Way::Plain);
  EXPECT_TRUE(expected.perturbed());
  EXPECT_TRUE(seen.perturbed());
  expect_same(expected, seen);
}

struct Batch {
  at::Tensor inputs, targets;

  /// Draws one.
  static Batch draw(int64_t size = 8) { return {torch::randn({size, 6}), torch::randint(3, {size}, at::kLong)}; }
};

/// A small classifier with a statistic and dropout.
class Net : public torch::nn::Module {
 public:
  explicit Net(double dropout = 0.3) {
    first = register_module("first", torch::nn::Linear(6, 16));
    norm = register_module("norm", torch::nn::BatchNorm1d(16));
    drop = register_module("drop", torch::nn::Dropout(dropout));
    second = register_module("second", torch::nn::Linear(16, 3));
  }

  at::Tensor forward(const at::Tensor& inputs) { return second(drop(norm(first(inputs)).tanh())); }
  at::Tensor loss(const Batch& batch) { return torch::cross_entropy_loss(forward(batch.inputs), batch.targets); }

  torch::nn::Linear first{nullptr}, second{nullptr};
  torch::nn::BatchNorm1d norm{nullptr};
  torch::nn::Dropout drop{nullptr};
};

}  // namespace steppe::plain_loops
