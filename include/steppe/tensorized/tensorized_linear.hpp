// A linear layer whose weight is the product of small cores.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/linear.h>
#include <c10/core/GradMode.h>
#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/options/linear.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include <steppe/tensorized/balanced_modes.hpp>
#include <steppe/tensorized/contraction.hpp>
#include <steppe/tensorized/core_module.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace tensorized {

/// y = x W^T + b, where W [out, in] is viewed as a tensor of its output and input modes,
///
///     W(o_1..o_m, i_1..i_n),  o_1 * ... * o_m = out,  i_1 * ... * i_n = in,
///
/// and kept as the cores of one format (CP, Tucker, tensor train, tensor ring; see CoreNetwork for their shapes).
///
/// Input [..., in] or [in]; output [..., out] or [out]. forward() multiplies x by the cores in sequence where that
/// costs fewer multiplications than building W and applying it, which depends on the number of rows; both are counted
/// for the given shapes, each in its cheapest order. Memory besides the output: the intermediates between two cores, at
/// most rows times the largest intermediate, which autograd keeps. It is made of ATen operations: double backward
/// works. Copies, save and load work as for any LibTorch module.
///
///     using namespace steppe::tensorized;  // was: torch::nn::Linear(784, 256)
///     TensorizedLinear layer(784, 256, CoreOptions().format(Format::TensorRing).rank(8));
///     steppe::DAS<torch::optim::SGD> das(layer->cores(), torch::optim::SGDOptions(0.1));
///
/// Errors: modes that do not multiply to the features, ranks below 1, a compression out of reach, inputs of other
/// features.
class TensorizedLinearImpl : public CoreModule<TensorizedLinearImpl> {
 public:
  /// With a bias.
  TensorizedLinearImpl(int64_t in_features, int64_t out_features, const CoreOptions& options)
      : TensorizedLinearImpl(torch::nn::LinearOptions(in_features, out_features), options) {}

  /// With or without a bias, as the options have it.
  TensorizedLinearImpl(const torch::nn::LinearOptions& linear, const CoreOptions& options)
      : TensorizedLinearImpl(linear, options,
                             modes_of(linear.out_features(), options.out_modes(), modes(options), "output features"),
                             modes_of(linear.in_features(), options.in_modes(), modes(options), "input features")) {}

  /// Registers the parameters, with random values.
  void reset() override { register_cores(linear_.bias() ? linear_.out_features() : 0); }

  /// y [..., out] of x [..., in]. Throws c10::Error if the input has other features.
  at::Tensor forward(const at::Tensor& input) {
    TORCH_CHECK(input.dim() > 0 && input.size(-1) == linear_.in_features(), "steppe: an input of shape ", input.sizes(),
                " does not fit a tensorized linear layer of ", linear_.in_features(), " features");
    if (route_for(input.sizes()) == Route::Full) return at::linear(input, weight(), bias);
    std::vector<int64_t> shape = {rows(input.sizes())};
    shape.insert(shape.end(), in_modes_.begin(), in_modes_.end());
    std::vector<at::Tensor> operands = cores_;
    operands.push_back(input.reshape(shape));
    std::vector<int64_t> outputs = input.sizes().vec();
    outputs.back() = linear_.out_features();
    const at::Tensor output = through_.run(*order(shape[0]), operands).reshape(outputs);
    return bias.defined() ? output + bias : output;
  }

  /// W [out, in], differentiable with respect to the cores.
  at::Tensor weight() const { return network_.full(cores_).reshape({linear_.out_features(), linear_.in_features()}); }

  /// Sets the cores to a decomposition of a weight [out, in]: exact to rounding at full rank, else as near as the
  /// format's decomposition comes. Computed in float64. Cores have equal norms afterwards, but for a weight of zeros.
  /// Ranks that the weight does not need add nothing to it and can learn.
  void decompose(const at::Tensor& weight) {
    TORCH_CHECK(
        weight.dim() == 2 && weight.size(0) == linear_.out_features() && weight.size(1) == linear_.in_features(),
        "steppe: a weight of shape ", weight.sizes(), " does not fit a tensorized linear layer, which needs [",
        linear_.out_features(), ", ", linear_.in_features(), "]");
    set_cores_of(weight);
  }

  /// How forward() computes for an input of this shape: Cores or Full.
  Route route_for(c10::IntArrayRef input) const {
    if (options_.route() != Route::Cheapest) return options_.route();
    const bool cores_win = multiplications(Route::Cores, input) < multiplications(Route::Full, input);
    return cores_win ? Route::Cores : Route::Full;
  }

  /// The cost of forward() by a route (Cheapest: the cheaper one). The backward pass costs about twice as much.
  double multiplications(Route way, c10::IntArrayRef input) const {
    const int64_t count = rows(input);
    if (way == Route::Full)
      return network_.multiplications() + static_cast<double>(count) * static_cast<double>(network_.entries());
    if (way == Route::Cores) return order(count)->multiplications;
    return multiplications(route_for(input), input);
  }

  /// Writes the layer's sizes, format, modes, ranks and compression in one line.
  void pretty_print(std::ostream& out) const override {
    out << "steppe::TensorizedLinear(in_features=" << linear_.in_features()
        << ", out_features=" << linear_.out_features();
    print_cores(out);
  }

 private:
  TensorizedLinearImpl(const torch::nn::LinearOptions& linear, const CoreOptions& options,
                       const std::vector<int64_t>& out_modes, const std::vector<int64_t>& in_modes)
      : CoreModule(CoreNetwork(joined(out_modes, in_modes), {0, 0}, options), options, linear.in_features()),
        linear_(linear),
        in_modes_(in_modes) {
    std::vector<std::string> operands;
    for (size_t k = 0; k < network_.shapes().size(); ++k) operands.push_back(network_.letters(k));
    std::string input = "Z", output = "Z";
    for (size_t k = 0; k < network_.modes().size(); ++k)
      (k < out_modes.size() ? output : input) += CoreNetwork::mode_letter(k);
    operands.push_back(input);
    through_ = Contraction(std::move(operands), std::move(output));
    reset();
  }

  static int64_t modes(const CoreOptions& options) { return options.modes() == 0 ? 2 : options.modes(); }

  static std::vector<int64_t> joined(std::vector<int64_t> first, const std::vector<int64_t>& second) {
    first.insert(first.end(), second.begin(), second.end());
    return first;
  }

  static int64_t rows(c10::IntArrayRef input) {
    int64_t count = 1;
    for (size_t k = 0; k + 1 < input.size(); ++k) count *= input[k];
    return count;
  }

  KeptOrder::Found order(int64_t count) const {
    return order_.of(count, [&] {
      LetterSizes sizes = network_.sizes();
      sizes['Z'] = count;
      return through_.cheapest(sizes, /*avoided=*/(uint32_t{1} << cores_.size()) - 1);
    });
  }

  torch::nn::LinearOptions linear_;
  std::vector<int64_t> in_modes_;
  Contraction through_;
  KeptOrder order_;
};

/// Held by a shared pointer, as every LibTorch module.
TORCH_MODULE(TensorizedLinear);

/// A tensorized layer that replaces a linear one: its weight is decomposed, its bias, type and device are kept.
///
///     auto layer = steppe::tensorized::decompose(*model->fc, CoreOptions().format(Format::CP).compression(4));
inline TensorizedLinear decompose(const torch::nn::LinearImpl& layer, const CoreOptions& options) {
  const c10::NoGradGuard no_grad;
  TensorizedLinear made(layer.options, options);
  made->to(layer.weight.device(), layer.weight.scalar_type());
  made->decompose(layer.weight);
  if (layer.bias.defined()) made->bias.copy_(layer.bias);
  return made;
}

}  // namespace tensorized
STEPPE_NAMESPACE_END
