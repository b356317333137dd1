// Optimum shifting of a model's final layer, or of named ones, during or after training.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <torch/arg.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <steppe/sharpness/hessian.hpp>
#include <steppe/sharpness/loss_surface.hpp>
#include <steppe/shift/input_recorder.hpp>
#include <steppe/shift/optimum_shift.hpp>
#include <steppe/step/autocast_state.hpp>
#include <steppe/step/buffers_guard.hpp>
#include <steppe/step/model.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace shift {

/// Called with the tensors that an accepted shift has written.
using Accepted = std::function<void(const std::vector<at::Tensor>& moved)>;

/// Options of OptimumShifter.
struct ShifterOptions {
  /// How each layer is solved.
  TORCH_ARG(ShiftOptions, solution);
  /// step() shifts at every k-th call: the k-th, the 2k-th, and so on.
  TORCH_ARG(int64_t, every) = 1;
  /// A shift is accepted if the loss rises by no more than this; infinity accepts every one.
  TORCH_ARG(double, tolerance) = 1e-4;
  /// Random vectors for the Hessian's trace before and after; 0: no traces.
  TORCH_ARG(int64_t, trace_vectors) = 0;
  /// Called after an accepted shift, to reset an optimizer's state of the old weights, say: see forget_state().
  TORCH_ARG(Accepted, accepted);

 public:
  /// Throws c10::Error if an option, of the solution too, is out of range.
  void validate() const {
    solution_.validate();
    TORCH_CHECK(every_ > 0, "steppe: every must be at least 1, got ", every_);
    TORCH_CHECK(tolerance_ >= 0.0, "steppe: the tolerance must be at least 0, got ", tolerance_);
    TORCH_CHECK(trace_vectors_ >= 0, "steppe: trace_vectors must be at least 0, got ", trace_vectors_);
  }
};

/// What a shift did, or would have done where it was not accepted.
struct ShifterReport {
  bool accepted = false;  ///< whether the shifted weights were kept
  /// Of the judged data.
  ///@{
  double loss_before = 0.0, loss_after = 0.0;
  ///@}
  std::vector<ShiftReport> layers;  ///< in the order of the names
  /// Of the Hessian on the judged data, if trace_vectors is not 0.
  ///@{
  std::optional<sharpness::Estimate> trace_before, trace_after;
  ///@}
};

/// Shifts layers of a model to their least-norm solution on given data (arXiv 2405.14111): once after training (OS), or
/// on a mini-batch every k steps of it (SOS).
///
/// The layers' inputs are gathered during an ordinary forward, that of the surface's loss. The shift is kept only if
/// the loss rises by no more than the tolerance; else, and when anything throws, the weights are what they were bit for
/// bit. Everything else of the model is left as by any measurement. Cost: two losses, and each layer's solution;
/// memory: one copy of the layers' weights and what optimum_shift() takes.
///
///     steppe::shift::OptimumShifter shifter(*model, steppe::shift::ShifterOptions().every(100));
///     const auto report = shifter.step(surface);  // in a training loop, after the optimizer's step
///     shifter.shift(surface);                     // or once; both return a ShifterReport
///
/// A loss that is not a number, before or after, is never accepted. Errors: a model without such layers, names that do
/// not exist, layers that the loss does not use, or applies in another thread or in a form that is not recognized
/// (InputRecorder).
class OptimumShifter {
 public:
  /// The last linear layer or 2-d convolution that the model has registered.
  explicit OptimumShifter(torch::nn::Module& model, ShifterOptions options = {}) : options_(std::move(options)) {
    options_.validate();
    for (const auto& child : model.named_modules(/*name_prefix=*/std::string(), /*include_self=*/false)) {
      if (!is_shiftable(*child.value())) continue;
      layers_ = {child.value()};
      names_ = {child.key()};
    }
    TORCH_CHECK(!layers_.empty(), "steppe: the model has no Linear and no Conv2d that could be shifted");
  }

  /// The layers of these names. Throws c10::Error if there are none, or one is not a Linear or Conv2d of the model.
  OptimumShifter(torch::nn::Module& model, const std::vector<std::string>& names, ShifterOptions options = {})
      : options_(std::move(options)), names_(names) {
    options_.validate();
    const auto modules = model.named_modules(/*name_prefix=*/std::string(), /*include_self=*/false);
    for (const std::string& name : names) {
      const std::shared_ptr<torch::nn::Module>* found = modules.find(name);
      TORCH_CHECK(found != nullptr && is_shiftable(**found), "steppe: the model has no Linear or Conv2d of the name \"",
                  name, "\"");
      layers_.push_back(*found);
    }
    TORCH_CHECK(!layers_.empty(), "steppe: an OptimumShifter needs at least one name");
  }

  /// Both with the model in its holder or a shared_ptr.
  template <class Holder, class... Rest,
            class = std::enable_if_t<step::is_model<Holder> && !std::is_base_of_v<torch::nn::Module, Holder>>>
  explicit OptimumShifter(const Holder& model, Rest&&... rest)
      : OptimumShifter(step::module_of(model), std::forward<Rest>(rest)...) {}

  /// Shifts the layers on `data`, which also gives the loss and traces that judge the shift.
  ShifterReport shift(const sharpness::LossSurface& data) { return shift(data, data); }

  /// With the layers' inputs from `gathered`, loss and traces from `judged`.
  ShifterReport shift(const sharpness::LossSurface& gathered, const sharpness::LossSurface& judged) {
    std::vector<ShiftInputs> inputs = gather(gathered);
    ShifterReport report;
    report.loss_before = judged.loss();
    report.trace_before = trace(judged);
    std::vector<at::Tensor> tensors, moved;
    for (const ShiftInputs& layer : inputs)
      for (const at::Tensor& tensor : layer.shifted()) tensors.push_back(tensor);
    const step::CastsForgotten casts;  // after the weights are back, or stay
    step::BuffersGuard weights(tensors);
    for (ShiftInputs& layer : inputs) {
      report.layers.push_back(layer.shift());
      if (!report.layers.back().moved) continue;
      for (const at::Tensor& tensor : layer.shifted()) moved.push_back(tensor);
    }
    report.loss_after = judged.loss();
    report.trace_after = trace(judged);
    report.accepted = report.loss_after <= report.loss_before + options_.tolerance();
    if (report.accepted) {
      if (options_.accepted() && !moved.empty()) options_.accepted()(moved);
      weights.dismiss();
    }
    return report;
  }

  /// Counts its calls, and shifts at every k-th; returns nothing at the others.
  ///@{
  std::optional<ShifterReport> step(const sharpness::LossSurface& data) { return step(data, data); }

  std::optional<ShifterReport> step(const sharpness::LossSurface& gathered, const sharpness::LossSurface& judged) {
    if (++steps_ % options_.every() != 0) return std::nullopt;
    return shift(gathered, judged);
  }
  ///@}

  /// How often step() was called.
  int64_t steps() const { return steps_; }

 private:
  static bool is_shiftable(const torch::nn::Module& module) {
    return module.as<torch::nn::Linear>() != nullptr || module.as<torch::nn::Conv2d>() != nullptr;
  }

  std::vector<ShiftInputs> gather(const sharpness::LossSurface& surface) const {
    std::vector<ShiftInputs> inputs;
    std::vector<at::Tensor> weights;
    for (const auto& layer : layers_) {
      if (auto* linear = layer->as<torch::nn::Linear>())
        inputs.emplace_back(*linear, options_.solution());
      else
        inputs.emplace_back(*layer->as<torch::nn::Conv2d>(), options_.solution());
      weights.push_back(inputs.back().shifted().front());
    }
    std::vector<bool> seen(layers_.size(), false);
    const InputRecorder recorder(weights, [&](size_t layer, const at::Tensor& input) {
      seen[layer] = true;
      inputs[layer].add(input);
    });
    surface.loss();
    recorder.rethrow();
    for (size_t i = 0; i < seen.size(); ++i)
      TORCH_CHECK(seen[i], "steppe: optimum shifting needs at least one input of the layer \"", names_[i],
                  "\" and has seen none: ", reason(recorder.other_uses(i)));
    return inputs;
  }

  static std::string reason(const std::vector<std::string>& uses) {
    if (uses.empty())
      return "no operator of this thread took its weight; is it applied in another thread, where it is not seen, in a "
             "compiled graph, or not at all?";
    std::string names;
    for (const std::string& name : uses) names += (names.empty() ? "" : ", ") + name;
    return "its weight went into " + names +
           "; apply it, neither cast nor computed, by its module, linear, conv2d, matmul, mm, bmm, addmm or einsum";
  }

  std::optional<sharpness::Estimate> trace(const sharpness::LossSurface& surface) const {
    if (options_.trace_vectors() == 0) return std::nullopt;
    return sharpness::trace(sharpness::Hessian(surface), sharpness::TraceOptions().vectors(options_.trace_vectors()));
  }

  ShifterOptions options_;
  std::vector<std::shared_ptr<torch::nn::Module>> layers_;
  std::vector<std::string> names_;
  int64_t steps_ = 0;
};

}  // namespace shift
STEPPE_NAMESPACE_END
