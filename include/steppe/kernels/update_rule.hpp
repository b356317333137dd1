// What LibTorch's optimizers do to a weight, in numbers.
// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels {

/// One step of one parameter group. w is the weight, g its gradient; b, m, v, x, s and a are kept from step to step;
/// all operations are elementwise.
///
///     SGD       d = g + weight_decay w;  with momentum:  b <- momentum b + (1 - dampening) d  (fresh: b <- d),
///               d <- nesterov ? d + momentum b : b;      w <- w - lr d
///     Adam      d = g + weight_decay w;  m <- beta1 m + (1 - beta1) d;  v <- beta2 v + (1 - beta2) d^2
///               w <- w - lr / c1 * m / (sqrt(u) / sqrt(c2) + eps),  c = 1 - beta^step,
///               u = v, or with amsgrad x <- max(x, v), u = x
///     AdamW     w <- (1 - lr weight_decay) w, then Adam with d = g
///     Adagrad   d = g + weight_decay w;  s <- s + d^2;  w <- w - lr / (1 + (step - 1) lr_decay) * d / (sqrt(s) + eps)
///     RMSprop   d = g + weight_decay w;  s <- alpha s + (1 - alpha) d^2;  centered: a <- alpha a + (1 - alpha) d
///               q = d / (sqrt(centered ? s - a^2 : s) + eps);  with momentum: b <- momentum b + q, q <- b
///               w <- w - lr q
struct UpdateRule {
  enum class Kind { SGD, Adam, AdamW, Adagrad, RMSprop };

  Kind kind = Kind::SGD;
  double lr = 0.0, lr_decay = 0.0, weight_decay = 0.0, momentum = 0.0, dampening = 0.0;
  double beta1 = 0.0, beta2 = 0.0, eps = 0.0, alpha = 0.0;
  bool nesterov = false, amsgrad = false, centered = false;
  bool fresh = false;         ///< SGD's b is not set yet
  double step = 1.0;          ///< counted from 1
  double c1 = 1.0, c2 = 1.0;  ///< Adam's bias corrections at this step

  void set_step(int64_t number) {
    step = static_cast<double>(number);
    c1 = 1.0 - std::pow(beta1, step);
    c2 = 1.0 - std::pow(beta2, step);
  }
  bool has_momentum() const { return momentum > 0.0 || momentum < 0.0; }
  bool is_adam() const { return kind == Kind::Adam || kind == Kind::AdamW; }
  /// Which of the kept tensors the rule uses.
  bool keeps(int k) const {
    if (kind == Kind::SGD) return k == 0 && has_momentum();
    if (kind == Kind::RMSprop) return k == 0 || (k == 1 ? has_momentum() : centered);
    return k == 0 || (is_adam() && (k == 1 || amsgrad));
  }
};

/// Tensors that are kept for a parameter: SGD b; Adam m, v, x; Adagrad s; RMSprop s, b, a. Those that a rule does not
/// use are null.
constexpr int kKept = 3;

}  // namespace kernels
STEPPE_NAMESPACE_END
