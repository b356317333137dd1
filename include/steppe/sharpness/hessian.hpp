// Products with the Hessian of a loss, and its trace.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/dot.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <torch/arg.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include <steppe/sharpness/displaced.hpp>
#include <steppe/sharpness/loss_surface.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace sharpness {

/// How a product with the Hessian is taken.
enum class Derivative {
  Auto,            ///< double backward, or differences where the first batch shows that it fails or is wrong
  DoubleBackward,  ///< exact up to rounding
  Differences      ///< central differences of the gradient
};

/// Random flat vectors that depend on the seed only, not on the device or on LibTorch's default generators.
class RandomVectors {
 public:
  explicit RandomVectors(uint64_t seed) : generator_(at::detail::createCPUGenerator(seed)) {}

  /// Entries -1 and 1 with equal chances.
  at::Tensor rademacher(int64_t size, const at::TensorOptions& like) {
    return at::randint(2, {size}, generator_, at::TensorOptions().dtype(like.dtype())).mul_(2).sub_(1).to(like);
  }
  at::Tensor normal(int64_t size, const at::TensorOptions& like) {
    return at::randn({size}, generator_, at::TensorOptions().dtype(like.dtype())).to(like);
  }

 private:
  at::Generator generator_;
};

/// A mean over random draws, with the standard error of that mean.
struct Estimate {
  double mean = 0.0;
  double standard_error = 0.0;
  int64_t draws = 0;
};

namespace detail {

/// In blocks: LibTorch would convert the whole of a long vector to float64 first.
inline double two_norm(const at::Tensor& vector) {
  const int64_t block = 1 << 16, size = vector.size(0);
  std::vector<at::Tensor> norms;
  for (int64_t from = 0; from < size; from += block)
    norms.push_back(at::linalg_vector_norm(vector.slice(0, from, std::min(from + block, size)), 2, c10::nullopt, false,
                                           at::kDouble));
  return norms.empty() ? 0.0 : at::linalg_vector_norm(at::stack(norms)).item<double>();
}

inline bool is_finite(const at::Tensor& vector) {
  if (std::isfinite(two_norm(vector))) return true;
  return vector.isfinite().all().item<bool>();  // a norm of float64 can overflow by itself
}

inline Estimate estimate_of(const std::vector<double>& draws) {
  Estimate result;
  result.draws = static_cast<int64_t>(draws.size());
  const double count = static_cast<double>(draws.size());
  for (const double value : draws) result.mean += value / count;
  double squares = 0.0;
  for (const double value : draws) squares += (value - result.mean) * (value - result.mean);
  result.standard_error = draws.size() > 1 ? std::sqrt(squares / (count - 1.0) / count) : std::nan("");
  return result;
}

/// <g, v> for a backward pass: only its derivative is asked for, which is v itself and not a copy of it.
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
/// one random vector, by both ways) and told by derivative() and reason().
/// Cost of a product: two backward passes through a graph of about twice the usual memory, or two gradients. Memory
/// beside the graph, the given vector included: three copies of the parameters, also for Auto when it is made.
///
///     const sharpness::Hessian hessian(surface);
///     at::Tensor product = hessian.times(v);  // v: surface.numel() elements
///
/// Errors: vectors of another length; differences over 16-bit parameters, also where these allow no double backward;
/// a product that is not finite.
class Hessian {
 public:
  explicit Hessian(LossSurface surface, Derivative derivative = Derivative::Auto)
      : surface_(std::move(surface)), derivative_(derivative), reason_("asked for") {
    if (derivative_ == Derivative::Auto) choose();
  }

  at::Tensor times(const at::Tensor& vector) const { return surface_.flat(times_in_parts(vector)); }

  /// The same as one flat tensor for each parameter, which nothing else shares. Over one batch that takes a copy less:
  /// a whole vector would stand beside its parts while it is put together.
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

  /// Never Auto.
  Derivative derivative() const { return derivative_; }
  /// Why: one sentence.
  const std::string& reason() const { return reason_; }
  const LossSurface& surface() const { return surface_; }

 private:
  double step() const { return surface_.vector_options().dtype() == at::kDouble ? 6e-6 : 5e-3; }

  static std::vector<at::Tensor> by_double_backward(const LossSurface& surface, const at::Tensor& vector) {
    const std::vector<at::Tensor>& params = surface.params();
    const std::vector<at::Tensor> pieces = surface.parts(vector);
    std::vector<at::Tensor> product(params.size());
    surface.for_each_batch(/*with_graph=*/true, [&](const at::Tensor& loss, double weight) {
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

  /// A gradient as a flat tensor. It may share its memory with the vector or with what others hold: then it is copied.
  static at::Tensor own_section(at::Tensor gradient, const at::TensorOptions& options) {
    if (!gradient.defined()) return gradient;
    if (gradient.layout() != at::kStrided) gradient = gradient.to_dense();
    const bool own = gradient.use_count() == 1 && gradient.storage().use_count() == 1 && gradient.is_contiguous();
    const at::Tensor section = own ? gradient.detach().view({-1}) : gradient.detach().reshape({-1}).clone();
    return section.to(options);
  }

  /// scale * <g_i, v_i> of every parameter whose gradient depends on the weights. The gradients themselves are gone
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
    if (length == 0.0) return;
    const std::vector<at::Tensor> direction = surface.parts(vector);
    Displaced weights(surface.params());
    weights.move_to(h / length, direction);
    surface.add_gradient(sum, factor * length / (2.0 * h));
    weights.move_to(-h / length, direction);
    surface.add_gradient(sum, -factor * length / (2.0 * h));
  }

  /// The first batch's product with one random vector, by both ways. Never more than one vector is kept of them.
  void choose() {
    const auto held = surface_.hold();
    const LossSurface first = surface_.batch(0);
    const at::Tensor vector = RandomVectors(0).normal(first.numel(), first.vector_options());
    first.loss();  // a closure that throws by itself is no matter of derivatives
    const auto takes_differences = [](const at::Tensor& param) {
      return param.scalar_type() == at::kFloat || param.scalar_type() == at::kDouble;
    };
    const bool comparable = std::all_of(first.params().begin(), first.params().end(), takes_differences);
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
      return;
    }
    derivative_ = Derivative::DoubleBackward;
    reason_ = "16-bit parameters allow no differences to compare with";
    if (!comparable) return;
    const double off = detail::two_norm(product);
    product.reset();
    judge(first, vector, size, off);
  }

  /// Rounding and kinks blur differences: those of two steps tell by how much, and double backward must be farther off
  /// than that to be called wrong.
  void judge(const LossSurface& first, const at::Tensor& vector, double size, double off) {
    // The gradient's own rounding, carried into the quotient.
    const double epsilon = first.vector_options().dtype() == at::kDouble ? 1e-15 : 1e-6;
    const double allowed =
        0.05 * size + epsilon * detail::two_norm(first.gradient()) * detail::two_norm(vector) / step();
    const auto blur = [&] {
      at::Tensor apart;
      add_differences(first, vector, 2.0 * step(), apart, 1.0);
      add_differences(first, vector, step(), apart, -1.0);
      return detail::two_norm(apart);
    };
    // A product that is no number is not within anything.
    if (!(off <= allowed) && !(off <= allowed + 3.0 * blur())) {
      derivative_ = Derivative::Differences;
      reason_ = "double backward is off by " + std::to_string(off / size) + " of the product by differences";
    } else {
      reason_ = "double backward agrees with differences";
    }
  }

  static std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

  LossSurface surface_;
  Derivative derivative_;
  std::string reason_;
};

/// Options of trace().
struct TraceOptions {
  TORCH_ARG(int64_t, vectors) = 100;
  TORCH_ARG(uint64_t, seed) = 0;
};

/// Hutchinson's estimate of the Hessian's trace: the mean of v^T H v over Rademacher vectors v, with its standard
/// error. Exact for a diagonal H. Cost: one product per vector; memory: one vector beside a product's.
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
