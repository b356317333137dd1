// A convolution whose weight is the product of small cores.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/conv2d.h>
#include <c10/core/GradMode.h>
#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/options/conv.h>
#include <torch/nn/pimpl.h>

#include <array>
#include <cstdint>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include <steppe/tensorized/balanced_modes.hpp>
#include <steppe/tensorized/contraction.hpp>
#include <steppe/tensorized/convolution_shape.hpp>
#include <steppe/tensorized/core_module.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace tensorized {

/// A two-dimensional convolution, y = x * W + b, where W [out, in, kh, kw] is viewed as a tensor of modes, output modes
/// first, then the kernel's, then input modes, and kept as the cores of one format:
///
///     CP            W(o.., h, w, i..)   1x1 convolution to R channels, kh x 1 and 1 x kw on each alone, 1x1 to out
///     Tucker        W(o.., h, w, i..)   1x1 to r_in channels, kh x kw with the core to r_out, 1x1 to out; the kernel's
///                                       modes have no factors (Tucker-2)
///     TensorTrain   W(o.., hw, i..)     input cores, kh x kw with the core of the kernel's mode, output cores
///     TensorRing    W(o.., hw, i..)     the same, over r_0 as one more batch
///
/// In CP and Tucker format channels are one mode unless modes, in_modes or out_modes are set; in a train or ring, two.
/// Input [N, in, h, w] or [in, h, w]. forward() goes core by core, as named above, where that costs fewer
/// multiplications than building W and applying it; both are counted for the input's shape, every part in its cheapest
/// order. It is made of ATen operations: double backward works. Copies, save and load work as for any LibTorch module.
///
///     using namespace steppe::tensorized;  // was: torch::nn::Conv2d(Conv2dOptions(64, 64, 3).padding(1))
///     TensorizedConv2d layer(torch::nn::Conv2dOptions(64, 64, 3).padding(1),
///                            CoreOptions().format(Format::TensorRing).compression(10));
///
/// Errors: groups, padding not by zeros, modes that do not multiply to the channels, ranks below 1, a compression out
/// of reach, inputs of other channels or too small for the kernel.
class TensorizedConv2dImpl : public CoreModule<TensorizedConv2dImpl> {
 public:
  /// From torch::nn::Conv2dOptions.
  TensorizedConv2dImpl(const ConvolutionShape& shape, const CoreOptions& options)
      : TensorizedConv2dImpl(shape, options,
                             modes_of(shape.out_channels, options.out_modes(), modes(options), "output channels"),
                             modes_of(shape.in_channels, options.in_modes(), modes(options), "input channels")) {}

  /// Registers the parameters, with random values.
  void reset() override { register_cores(shape_.bias ? shape_.out_channels : 0); }

  /// y [N, out, h', w'] of x [N, in, h, w], or the same without N. Throws c10::Error if the input does not fit.
  at::Tensor forward(const at::Tensor& input) {
    TORCH_CHECK((input.dim() == 3 || input.dim() == 4) && input.size(-3) == shape_.in_channels,
                "steppe: an input of shape ", input.sizes(), " does not fit a tensorized convolution of ",
                shape_.in_channels, " channels");
    const Route way = route_for(input.sizes());
    const at::Tensor batch = shape_.padded(input.dim() == 3 ? input.unsqueeze(0) : input);
    const at::Tensor output = way == Route::Full
                                  ? at::conv2d(batch, weight(), bias, shape_.stride, shape_.padding(), shape_.dilation)
                                  : by_cores(batch, Pixels(shape_, input.sizes()));
    return input.dim() == 3 ? output.squeeze(0) : output;
  }

  /// W [out, in, kh, kw], differentiable with respect to the cores.
  at::Tensor weight() const {
    return network_.full(cores_)
        .reshape({shape_.out_channels, shape_.kernel[0], shape_.kernel[1], shape_.in_channels})
        .permute({0, 3, 1, 2})
        .contiguous();
  }

  /// Sets the cores to a decomposition of a weight [out, in, kh, kw]: exact to rounding at full rank, else as near as
  /// the format's decomposition comes. Computed in float64. Cores have equal norms afterwards, but for a weight of
  /// zeros. Ranks that the weight does not need add nothing to it and can learn.
  void decompose(const at::Tensor& weight) {
    const std::vector<int64_t> needed = {shape_.out_channels, shape_.in_channels, shape_.kernel[0], shape_.kernel[1]};
    TORCH_CHECK(weight.sizes() == needed, "steppe: a weight of shape ", weight.sizes(),
                " does not fit a tensorized convolution, which needs ", c10::IntArrayRef(needed));
    set_cores_of(weight.permute({0, 2, 3, 1}));
  }

  /// How forward() computes for an input of this shape: Cores or Full; for an empty batch always Full.
  Route route_for(c10::IntArrayRef input) const {
    // LibTorch 1.13 does not take an empty batch through a convolution of groups.
    if (input.size() == 4 && input[0] == 0) return Route::Full;
    if (options_.route() != Route::Cheapest) return options_.route();
    const bool cores_win = multiplications(Route::Cores, input) < multiplications(Route::Full, input);
    return cores_win ? Route::Cores : Route::Full;
  }

  /// The cost of forward() by a route (Cheapest: the cheaper one). The backward pass costs about twice as much.
  double multiplications(Route way, c10::IntArrayRef input) const {
    if (way == Route::Cheapest) return multiplications(route_for(input), input);
    const Pixels pixels(shape_, input);
    if (way == Route::Full)
      return network_.multiplications() + pixels.batch * pixels.after() * static_cast<double>(network_.entries());
    return in_order(pixels).multiplications + kernel_multiplications(pixels) + out_order(pixels).multiplications;
  }

  /// Writes the layer's sizes, format, modes, ranks and compression in one line.
  void pretty_print(std::ostream& out) const override {
    out << "steppe::TensorizedConv2d(" << shape_.in_channels << ", " << shape_.out_channels
        << ", kernel_size=" << c10::IntArrayRef(shape_.kernel) << ", stride=" << c10::IntArrayRef(shape_.stride);
    print_cores(out);
  }

 private:
  /// How many there are, before and after the kernel.
  struct Pixels {
    Pixels(const ConvolutionShape& shape, c10::IntArrayRef input)
        : batch(input.size() == 4 ? static_cast<double>(input[0]) : 1.0) {
      for (size_t d = 0; d < 2; ++d) {
        const int64_t size = input[input.size() - 2 + d];
        in[d] = size + (shape.symmetric() ? 0 : shape.before[d] + shape.after[d]);
        out[d] = shape.output(d, size);
      }
    }
    double before() const { return static_cast<double>(in[0] * in[1]); }
    double after() const { return static_cast<double>(out[0] * out[1]); }

    double batch = 1.0;
    int64_t in[2] = {0, 0}, out[2] = {0, 0};
  };

  TensorizedConv2dImpl(const ConvolutionShape& shape, const CoreOptions& options, const std::vector<int64_t>& out_modes,
                       const std::vector<int64_t>& in_modes)
      : CoreModule(network(shape, options, out_modes, in_modes), options, shape.fan_in()),
        shape_(shape),
        in_modes_(in_modes) {
    const size_t outs = out_modes.size(), first_in = network_.modes().size() - in_modes.size();
    const bool chain = network_.format() == Format::TensorTrain || network_.format() == Format::TensorRing;
    // Letters that meet the kernel: a ring's r_0, then those of its input side or of its output side.
    if (chain) {
      passing_ = "A";
      in_ranks_ = CoreNetwork::rank_letter(first_in);
      out_ranks_ = CoreNetwork::rank_letter(outs);
    } else if (network_.format() == Format::CP) {
      in_ranks_ = out_ranks_ = "A";
    } else {
      for (size_t k = 0; k < outs + in_modes.size(); ++k)
        (k < outs ? out_ranks_ : in_ranks_) += CoreNetwork::rank_letter(k);
    }
    std::string inputs, outputs;
    std::vector<std::string> in_operands, out_operands;
    for (size_t k = 0; k < network_.modes().size(); ++k) {
      if (k >= outs && k < first_in) continue;
      const bool out = k < outs;
      (out ? outputs : inputs) += CoreNetwork::mode_letter(k);
      (out ? out_cores_ : in_cores_).push_back(network_.core_of(k));
      (out ? out_operands : in_operands).push_back(network_.letters(network_.core_of(k)));
    }
    in_operands.push_back("Y" + inputs + "Z");
    out_operands.push_back("Y" + passing_ + out_ranks_ + "Z");
    in_ = Contraction(in_operands, "Y" + passing_ + in_ranks_ + "Z");
    out_ = Contraction(out_operands, "Y" + outputs + "Z");
    reset();
  }

  static int64_t modes(const CoreOptions& options) {
    if (options.modes() > 0) return options.modes();
    return options.format() == Format::CP || options.format() == Format::Tucker ? 1 : 2;
  }

  static CoreNetwork network(const ConvolutionShape& shape, const CoreOptions& options,
                             const std::vector<int64_t>& out_modes, const std::vector<int64_t>& in_modes) {
    std::vector<int64_t> all = out_modes;
    if (options.format() == Format::CP || options.format() == Format::Tucker)
      all.insert(all.end(), shape.kernel.begin(), shape.kernel.end());
    else
      all.push_back(shape.kernel[0] * shape.kernel[1]);
    const size_t end = all.size();
    all.insert(all.end(), in_modes.begin(), in_modes.end());
    return CoreNetwork(std::move(all), {out_modes.size(), end}, options);
  }

  Contraction::Order in_order(const Pixels& pixels) const { return in_.cheapest(sizes(pixels.batch, pixels.before())); }
  Contraction::Order out_order(const Pixels& pixels) const {
    return out_.cheapest(sizes(pixels.batch, pixels.after()));
  }
  LetterSizes sizes(double batch, double pixels) const {
    LetterSizes all = network_.sizes();
    all['Y'] = static_cast<int64_t>(batch);
    all['Z'] = static_cast<int64_t>(pixels);
    return all;
  }

  double kernel_multiplications(const Pixels& pixels) const {
    const double high = static_cast<double>(shape_.kernel[0]), wide = static_cast<double>(shape_.kernel[1]);
    const double ranks = network_.sizes().product(in_ranks_);
    if (network_.format() == Format::CP) {
      const double between = static_cast<double>(pixels.out[0] * pixels.in[1]);
      return pixels.batch * ranks * (between * high + pixels.after() * wide);
    }
    return pixels.batch * network_.sizes().product(passing_) * ranks * network_.sizes().product(out_ranks_) *
           pixels.after() * high * wide;
  }

  at::Tensor by_cores(const at::Tensor& batch, const Pixels& pixels) const {
    std::vector<int64_t> shape = {batch.size(0)};
    shape.insert(shape.end(), in_modes_.begin(), in_modes_.end());
    shape.push_back(batch.size(2) * batch.size(3));
    const at::Tensor inner = in_.run(in_order(pixels), operands(in_cores_, batch.reshape(shape)));
    const at::Tensor filtered = through_kernel(
        inner.reshape({batch.size(0) * count(passing_), count(in_ranks_), batch.size(2), batch.size(3)}));
    shape = {batch.size(0)};
    for (const char letter : passing_ + out_ranks_) shape.push_back(network_.sizes()[letter]);
    shape.push_back(filtered.size(2) * filtered.size(3));
    at::Tensor output = out_.run(out_order(pixels), operands(out_cores_, filtered.reshape(shape)))
                            .reshape({batch.size(0), shape_.out_channels, filtered.size(2), filtered.size(3)})
                            .contiguous(batch.suggest_memory_format());
    return bias.defined() ? output + bias.view({-1, 1, 1}) : output;
  }

  std::vector<at::Tensor> operands(const std::vector<size_t>& which, const at::Tensor& input) const {
    std::vector<at::Tensor> all;
    for (const size_t core : which) all.push_back(cores_[core]);
    all.push_back(input);
    return all;
  }

  int64_t count(const std::string& letters) const { return static_cast<int64_t>(network_.sizes().product(letters)); }

  /// [batches, input ranks, h, w] to [batches, output ranks, h', w'].
  at::Tensor through_kernel(const at::Tensor& x) const {
    const auto &stride = shape_.stride, &dilation = shape_.dilation, padding = shape_.padding();
    const size_t kernel = out_cores_.size();  // of the kernel's first mode
    if (network_.format() == Format::CP) {
      const int64_t ranks = count(in_ranks_);
      const at::Tensor high = cores_[kernel].t().reshape({ranks, 1, -1, 1});
      const at::Tensor wide = cores_[kernel + 1].t().reshape({ranks, 1, 1, -1});
      using Two = std::array<int64_t, 2>;
      const at::Tensor y = at::conv2d(x, high, {}, Two{stride[0], 1}, Two{padding[0], 0}, Two{dilation[0], 1}, ranks);
      return at::conv2d(y, wide, {}, Two{1, stride[1]}, Two{0, padding[1]}, Two{1, dilation[1]}, ranks);
    }
    // [output ranks, kh * kw, input ranks], in Tucker format the core itself
    const at::Tensor& core = cores_[network_.format() == Format::Tucker ? 0 : kernel];
    const at::Tensor weight =
        core.reshape({count(out_ranks_), shape_.kernel[0], shape_.kernel[1], count(in_ranks_)}).permute({0, 3, 1, 2});
    return at::conv2d(x, weight.contiguous(), {}, stride, padding, dilation);
  }

  ConvolutionShape shape_;
  std::vector<int64_t> in_modes_;
  std::string passing_, in_ranks_, out_ranks_;
  std::vector<size_t> in_cores_, out_cores_;
  Contraction in_, out_;
};

/// Held by a shared pointer, as every LibTorch module.
TORCH_MODULE(TensorizedConv2d);

/// A tensorized layer that replaces a convolution: its weight is decomposed, its bias, type and device are kept.
///
///     auto layer = steppe::tensorized::decompose(*model->conv1, CoreOptions().format(Format::Tucker).compression(4));
inline TensorizedConv2d decompose(const torch::nn::Conv2dImpl& layer, const CoreOptions& options) {
  const c10::NoGradGuard no_grad;
  TensorizedConv2d made(ConvolutionShape(layer.options), options);
  made->to(layer.weight.device(), layer.weight.scalar_type());
  made->decompose(layer.weight);
  if (layer.bias.defined()) made->bias.copy_(layer.bias);
  return made;
}

}  // namespace tensorized
STEPPE_NAMESPACE_END
