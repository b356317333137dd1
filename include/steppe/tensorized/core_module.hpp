// What tensorized layers share: cores as parameters, and the weight that they represent.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <c10/core/GradMode.h>
#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>
#include <torch/nn/cloneable.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include <steppe/tensorized/core_network.hpp>
#include <steppe/tensorized/core_options.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace tensorized {

/// The part of a tensorized layer that does not depend on how the weight is applied. Parameters: core_0, core_1, ...,
/// and bias where the layer has one.
template <class Derived>
class CoreModule : public torch::nn::Cloneable<Derived> {
 public:
  /// The cores, one parameter group for DeviationAwareScaling and one layer for DeviationMonitor; the bias is not among
  /// them. Scaling one core by c and another by 1/c leaves the weight as it is.
  std::vector<at::Tensor> cores() const { return cores_; }

  /// Format, modes, ranks, shapes of the cores, number of parameters, and the compression that was reached.
  const CoreNetwork& network() const { return network_; }
  /// In the order of CoreOptions::ranks().
  std::vector<int64_t> ranks() const { return network_.ranks(); }
  /// Parameters of the full weight over those of the cores.
  double compression() const { return network_.compression(); }

  /// The options that the layer was made with; route() may have changed their route.
  const CoreOptions& options() const { return options_; }
  /// Sets how forward() computes.
  void route(Route way) { options_.route(way); }

  /// Draws new random values: entries of every core are normal, with the standard deviation that gives the weight's
  /// entries the variance gain^2 / fan_in; the bias is initialized as in LibTorch's own layers.
  void reset_parameters() {
    const c10::NoGradGuard no_grad;
    const double inputs = static_cast<double>(fan_in_), gain = options_.gain();
    const double deviation = network_.entry_deviation(gain * gain / inputs);
    for (at::Tensor& core : cores_) core.copy_(at::randn(core.sizes(), core.options()) * deviation);
    if (bias.defined()) bias.copy_((at::rand(bias.sizes(), bias.options()) * 2.0 - 1.0) / std::sqrt(inputs));
  }

  at::Tensor bias;  ///< [outputs]; undefined if the layer has none

 protected:
  /// Without parameters, which reset() of the derived class registers. `fan_in`: inputs of one output.
  CoreModule(CoreNetwork network, CoreOptions options, int64_t fan_in)
      : network_(std::move(network)), options_(std::move(options)), fan_in_(fan_in) {}

  /// Registers the cores, and a bias of that many outputs (0: no bias), with random values.
  void register_cores(int64_t outputs) {
    cores_.clear();
    for (size_t k = 0; k < network_.shapes().size(); ++k)
      cores_.push_back(this->register_parameter("core_" + std::to_string(k), at::empty(network_.shapes()[k])));
    bias = outputs > 0 ? this->register_parameter("bias", at::empty({outputs}))
                       : this->register_parameter("bias", at::Tensor(), /*requires_grad=*/false);
    reset_parameters();
  }

  /// Sets the cores to a decomposition of a tensor that has the network's number of entries.
  void set_cores_of(const at::Tensor& tensor) {
    const c10::NoGradGuard no_grad;
    const std::vector<at::Tensor> found = network_.decompose(tensor, options_.sweeps(), options_.tolerance());
    for (size_t k = 0; k < cores_.size(); ++k) cores_[k].copy_(found[k]);
  }

  /// The end of a pretty_print(): format, modes, ranks, parameters, compression and bias, closed by a parenthesis.
  void print_cores(std::ostream& out) const {
    out << ", format=" << network_.format() << ", modes=" << c10::IntArrayRef(network_.modes())
        << ", ranks=" << c10::IntArrayRef(network_.ranks()) << ", parameters=" << network_.parameters()
        << ", compression=" << compression() << ", bias=" << std::boolalpha << bias.defined() << ")";
  }

  CoreNetwork network_;            ///< see network()
  CoreOptions options_;            ///< see options()
  int64_t fan_in_ = 1;             ///< inputs of one output
  std::vector<at::Tensor> cores_;  ///< see cores()
};

}  // namespace tensorized
STEPPE_NAMESPACE_END
