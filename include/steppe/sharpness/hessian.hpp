// Products with the Hessian of a loss, and its trace.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/dot.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <torch/arg.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include <steppe/kernels/exact.hpp>
#include <steppe/sharpness/displaced.hpp>
#include <steppe/sharpness/loss_surface.hpp>
#include <steppe/sharpness/random_vectors.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
/// Measures of how sharp a minimum is; none changes the model.
namespace sharpness {

/// How a product with the Hessian is taken.
enum class Derivative {
  Auto,            ///< double backward, or differences where the first batch shows that it fails or is wrong
  DoubleBackward,  ///< exact up to rounding
  Differences      ///< central differences of the gradient
};

namespace detail {

/// <g, v> for a backward pass: only its derivative is used, which is v itself and not a copy of it.
struct Slope : torch::autograd::Function<Slope> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& gradient,
                            const at::Tensor& direction) {
    context->saved_data["direction"] = direction;
    return at::zeros({}, gradient.options());
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& /*ones*/) {
    return {context->saved_data["direction"].toTensor(), at::Tensor()};
  }
};

}  // namespace detail

/// The Hessian of a loss surface at the weights as they are when a product is taken.
///
/// times(v) = d/dw <g(w), v>, by a second backward pass, or (g(w + h u) - g(w - h u)) |v| / 2h with u = v / |v|; h is
/// 6e-6 in float64, 5e-3 in float32. Which one is used is decided when made (for Auto: the first batch's product with
/// one random vector, by both ways) and reported by derivative() and reason(). Differences see the kinks of a loss
/// (ReLU, bilinear sampling) that a step crosses, which double backward does not: spread() is how far those of other
/// steps differ.
///
/// Cost of a product: two backward passes through a graph of about twice the usual memory, or two gradients. Memory
/// besides the graph, the given vector included: three copies of the parameters, also for Auto when it is made.
///
///     const sharpness::Hessian hessian(surface);
///     at::Tensor product = hessian.times(v);  // v: surface.numel() elements
///
/// Errors: vectors of another length; differences over 16-bit parameters, also where these allow no double backward;
/// a product that is not finite.
class Hessian {
 public:
  /// Chooses how products are taken, by products with one random vector unless double backward is given.
  explicit Hessian(LossSurface surface, Derivative derivative = Derivative::Auto)
      : surface_(std::move(surface)), derivative_(derivative), reason_("asked for") {
    if (derivative_ != Derivative::DoubleBackward) choose();
  }

  /// H v, flat as v is. Throws c10::Error if v has another length than surface().numel(), or H v is not finite.
  at::Tensor times(const at::Tensor& vector) const { return surface_.flat(times_in_parts(vector)); }

  /// The same as one flat tensor for each parameter, whose memory nothing else shares. Over one batch this takes one
  /// copy less: times() holds the parts and the whole vector at once.
  std::vector<at::Tensor> times_in_parts(const at::Tensor& vector) const {
    const auto held = surface_.hold();
    std::vector<at::Tensor> product;
    if (derivative_ == Derivative::Differences) {
      at::Tensor flat;
      add_differences(surface_, vector, step(), flat, 1.0);
      product = surface_.sections(flat);
    } else {
      product = by_double_backward(surface_, vector);
    }
    for (const at::Tensor& part : product)
      TORCH_CHECK(detail::is_finite(part),
                  "steppe: a product with the Hessian is not finite; is the loss finite at these weights?");
    return product;
  }

  /// How products are taken; never Auto.
  Derivative derivative() const { return derivative_; }
  /// Why they are taken so: one sentence.
  const std::string& reason() const { return reason_; }
  /// How far differences of twice and of half the step are from those of the step, relative to these, for one random
  /// vector of the first batch: their accuracy. Over 0.05 there is a warning if differences are used. NaN if not
  /// measured: double backward was given or agrees.
  double spread() const { return spread_; }
  /// The loss whose Hessian it is.
  const LossSurface& surface() const { return surface_; }

 private:
  double step() const { return surface_.vector_options().dtype() == at::kDouble ? 6e-6 : 5e-3; }

  static std::vector<at::Tensor> by_double_backward(const LossSurface& surface, const at::Tensor& vector) {
    const std::vector<at::Tensor>& params = surface.params();
    const std::vector<at::Tensor> pieces = surface.parts(vector);
    std::vector<at::Tensor> product(params.size());
    surface.for_each_batch(/*with_graph=*/true, [&](const at::Tensor& loss, double weight) {
      LossSurface::check_graph(loss);
      const std::vector<at::Tensor> slopes = slopes_along(pieces, loss, at::full_like(loss, weight), params);
      if (slopes.empty()) return;
      std::vector<at::Tensor> second = torch::autograd::grad(slopes, params, {}, /*retain_graph=*/false,
                                                             /*create_graph=*/false, /*allow_unused=*/true);
      const c10::NoGradGuard no_grad;
      for (size_t i = 0; i < product.size(); ++i) {
        const at::Tensor part = own_section(std::move(second[i]), surface.vector_options());
        if (product[i].defined() && part.defined())
          product[i].add_(part);
        else if (part.defined())
          product[i] = part;
      }
    });
    for (size_t i = 0; i < product.size(); ++i)
      if (!product[i].defined()) product[i] = at::zeros({params[i].numel()}, surface.vector_options());
    return product;
  }

  /// A gradient as a flat tensor. Copied if its memory is shared, with the vector or with other tensors.
  static at::Tensor own_section(at::Tensor gradient, const at::TensorOptions& options) {
    if (!gradient.defined()) return gradient;
    if (gradient.layout() != at::kStrided) gradient = gradient.to_dense();
    const bool own = gradient.use_count() == 1 && gradient.storage().use_count() == 1 && gradient.is_contiguous();
    const at::Tensor section = own ? gradient.detach().view({-1}) : gradient.detach().reshape({-1}).clone();
    return section.to(options);
  }

  /// scale * <g_i, v_i> of every parameter whose gradient depends on the weights. The gradients themselves are freed
  /// before the second pass begins.
  static std::vector<at::Tensor> slopes_along(const std::vector<at::Tensor>& pieces, const at::Tensor& loss,
                                              const at::Tensor& scale, const std::vector<at::Tensor>& params) {
    std::vector<at::Tensor> first = torch::autograd::grad({loss}, params, {scale}, /*retain_graph=*/true,
                                                          /*create_graph=*/true, /*allow_unused=*/true);
    std::vector<at::Tensor> slopes;
    for (size_t i = 0; i < first.size(); ++i) {
      const at::Tensor gradient = std::move(first[i]);
      if (!gradient.defined() || !gradient.requires_grad()) continue;  // linear in this one: no second derivative
      TORCH_CHECK(gradient.layout() == at::kStrided, "steppe: sparse gradients have no double backward");
      slopes.push_back(detail::Slope::apply(gradient, pieces[i]));
    }
    return slopes;
  }

  static void add_differences(const LossSurface& surface, const at::Tensor& vector, double h, at::Tensor& sum,
                              double factor) {
    for (const at::Tensor& param : surface.params())
      TORCH_CHECK(param.scalar_type() == at::kFloat || param.scalar_type() == at::kDouble,
                  "steppe: differences need float32 or float64 parameters, got ", param.scalar_type(),
                  "; measure a model.to(torch::kFloat)");
    const double length = detail::two_norm(vector);
    if (!sum.defined()) sum = at::zeros({surface.numel()}, surface.vector_options());
    if (kernels::exact::is_zero(length)) return;
    const std::vector<at::Tensor> direction = surface.parts(vector);
    Displaced weights(surface.params());
    weights.move_to(h / length, direction);
    surface.add_gradient(sum, factor * length / (2.0 * h), &weights);
    weights.move_to(-h / length, direction);
    surface.add_gradient(sum, -factor * length / (2.0 * h), &weights);
  }

  static bool takes_differences(const LossSurface& surface) {
    return std::all_of(surface.params().begin(), surface.params().end(), [](const at::Tensor& param) {
      return param.scalar_type() == at::kFloat || param.scalar_type() == at::kDouble;
    });
  }

  /// Compares the first batch's products with one random vector by both ways; only one vector of them is held at once.
  void choose() {
    const auto held = surface_.hold();
    const LossSurface first = surface_.batch(0);
    const double loss = first.loss();  // a closure that throws anyway is not an error of double backward
    TORCH_CHECK(std::isfinite(loss), "steppe: the loss is not finite at the weights as they are, it is ", loss);
    const at::Tensor vector = RandomVectors(0).normal(first.numel(), first.vector_options());
    if (derivative_ != Derivative::Auto) return measure_spread(first, vector);
    const bool comparable = takes_differences(first);
    at::Tensor product;
    if (comparable) add_differences(first, vector, step(), product, 1.0);
    const double size = comparable ? detail::two_norm(product) : 0.0;
    try {
      const std::vector<at::Tensor> sections = by_double_backward(first, vector);
      for (size_t i = 0; comparable && i < sections.size(); ++i) first.sections(product)[i].sub_(sections[i]);
    } catch (const std::exception& error) {
      TORCH_CHECK(comparable, "steppe: double backward fails (", first_line(error.what()),
                  "), and differences need float32 or float64 parameters; measure a model.to(torch::kFloat)");
      derivative_ = Derivative::Differences;
      reason_ = "double backward fails: " + first_line(error.what());
      product.reset();
      return measure_spread(first, vector);
    }
    derivative_ = Derivative::DoubleBackward;
    reason_ = "16-bit parameters allow no differences to compare with";
    if (!comparable) return;
    const double off = detail::two_norm(product);
    product.reset();
    judge(first, vector, size, off);
  }

  /// Double backward is called wrong only where differences are reliable: where those of other steps are much closer to
  /// them. A kink that a step crosses adds what no second derivative has.
  void judge(const LossSurface& first, const at::Tensor& vector, double size, double off) {
    reason_ = "double backward agrees with differences";
    if (off <= 0.05 * size + rounding(first)) return;
    measure_spread(first, vector);
    if (off <= 20.0 * spread_ * size) {
      reason_ =
          "double backward, which differences cannot judge: those of other steps are " + percent(spread_) + " apart";
      return;
    }
    derivative_ = Derivative::Differences;
    reason_ = "double backward is off by " + std::to_string(off / size) +
              " of the product by differences; those of other steps by " + percent(spread_);
  }

  /// How far apart the first batch's products with a vector are by twice and half the step.
  void measure_spread(const LossSurface& first, const at::Tensor& vector) {
    if (!takes_differences(first)) return;
    at::Tensor product;
    add_differences(first, vector, step(), product, 1.0);
    const double size = detail::two_norm(product);
    double apart = 0.0;
    for (const double factor : {2.0, 0.5}) {
      product.zero_();
      add_differences(first, vector, factor * step(), product, 1.0);
      add_differences(first, vector, step(), product, -1.0);
      const double by_factor = detail::two_norm(product);
      if (!(by_factor <= apart)) apart = by_factor;
    }
    spread_ = kernels::exact::is_zero(apart) ? 0.0 : apart / size;
    if (derivative_ != Derivative::Differences) return;
    reason_ += "; differences of other steps are " + percent(spread_) + " apart";
    if (apart <= 0.05 * size + 3.0 * rounding(first)) return;
    reason_ += ", not to be trusted";
    TORCH_WARN("steppe: products with the Hessian by differences are not to be trusted here, those of other steps are ",
               percent(spread_), " apart: kinks of the loss or rounding; measure in float64, or by double backward");
  }

  /// The error of a difference that the gradient's own rounding may cause.
  double rounding(const LossSurface& first) const {
    const double epsilon = first.vector_options().dtype() == at::kDouble ? 1e-15 : 1e-6;
    return epsilon * detail::two_norm(first.gradient()) * std::sqrt(static_cast<double>(first.numel())) / step();
  }

  static std::string percent(double share) {
    std::array<char, 32> text{};
    std::snprintf(text.data(), text.size(), "%.2g %%", 100.0 * share);
    return text.data();
  }
  static std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

  LossSurface surface_;
  Derivative derivative_;
  std::string reason_;
  double spread_ = std::nan("");
};

/// Options of trace().
struct TraceOptions {
  /// Number of Rademacher vectors.
  TORCH_ARG(int64_t, vectors) = 100;
  /// Of the random vectors.
  TORCH_ARG(uint64_t, seed) = 0;
};

/// Hutchinson's estimate of the Hessian's trace: the mean of v^T H v over Rademacher vectors v, with its standard
/// error. Exact for a diagonal H. Cost: one product per vector; memory: one vector besides a product's.
///
///     const sharpness::Estimate trace = sharpness::trace(sharpness::Hessian(surface));
///
/// Errors: fewer than one vector.
inline Estimate trace(const Hessian& hessian, const TraceOptions& options = {}) {
  TORCH_CHECK(options.vectors() > 0, "steppe: a trace needs at least one vector, got ", options.vectors());
  const LossSurface& surface = hessian.surface();
  RandomVectors random(options.seed());
  std::vector<double> draws;
  for (int64_t i = 0; i < options.vectors(); ++i) {
    const at::Tensor v = random.rademacher(surface.numel(), surface.vector_options());
    draws.push_back(at::dot(v, hessian.times(v)).item<double>());
    surface.tell("trace", i + 1, options.vectors());
  }
  return detail::estimate_of(draws);
}

}  // namespace sharpness
STEPPE_NAMESPACE_END
