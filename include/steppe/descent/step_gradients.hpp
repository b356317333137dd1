// What a descent over all parameter groups receives.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <cstdint>
#include <functional>
#include <type_traits>
#include <utility>
#include <vector>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace descent {

/// The gradients of one parameter group, beside its parameters; those without a final gradient are left out, unless the
/// descent has `sees_all_gradients`.
struct GroupGradients {
  std::vector<at::Tensor> params;  ///< the parameters; the other lists are beside them
  std::vector<at::Tensor> final;   ///< at w + e, or at w on a plain step; receives what the base optimizer consumes
  std::vector<at::Tensor> first;   ///< at w, where `needs_first_gradient` is true; else undefined tensors
  std::vector<bool> takes_part;    ///< whether it is perturbed: not excluded, and rho is over 0
};

/// One step, as a descent sees it.
///
/// A descent over all groups has `static void descend(const std::vector<Self*>& of_groups,
/// std::vector<GroupGradients>&, const StepGradients&)`, which is called at w on every step, plain ones too.
struct StepGradients {
  bool perturbed = false;    ///< pass 2 was made
  int64_t step = 0;          ///< its number, from 0
  at::Tensor first_squares;  ///< |g|^2 of all gradients of pass 1, where `needs_first_squares` is true; float64, 0-dim
  /// The loss at w + radius * v / |v|, v beside the gradients of every group: without a gradient if the program has
  /// given a closure for that, else by a pass whose gradients are discarded. Empty where no loss can be evaluated.
  std::function<double(const std::vector<std::vector<at::Tensor>>& v, double radius)> loss_at;
};

namespace detail {

/// Known without waiting for a device.
inline bool is_known_not_finite(const at::Tensor& number) {
  return number.device().is_cpu() && !number.isfinite().item<bool>();
}

/// x / y, and 0 where y is 0.
inline at::Tensor ratio(const at::Tensor& x, const at::Tensor& y) { return at::where(y > 0, x / y, at::zeros_like(x)); }

/// One list of all groups' gradients.
inline std::vector<at::Tensor> joined(const std::vector<GroupGradients>& groups,
                                      std::vector<at::Tensor> GroupGradients::*list) {
  std::vector<at::Tensor> all;
  for (const GroupGradients& group : groups) all.insert(all.end(), (group.*list).begin(), (group.*list).end());
  return all;
}

}  // namespace detail

}  // namespace descent

namespace detail {

/// A descent over all groups, not one group at a time.
template <class Descent, class = void>
struct IsTogether : std::false_type {};
template <class Descent>
struct IsTogether<Descent, std::void_t<decltype(Descent::descend(std::declval<const std::vector<Descent*>&>(),
                                                                 std::declval<std::vector<descent::GroupGradients>&>(),
                                                                 std::declval<const descent::StepGradients&>()))>>
    : std::true_type {};

template <class Descent, class = void>
struct NeedsFirstSquares : std::false_type {};
template <class Descent>
struct NeedsFirstSquares<Descent, std::enable_if_t<Descent::needs_first_squares>> : std::true_type {};

template <class Descent, class = void>
struct NeedsRawAscent : std::false_type {};
template <class Descent>
struct NeedsRawAscent<Descent, std::enable_if_t<Descent::needs_raw_ascent>> : std::true_type {};

/// Also receives gradients of parameters that only pass 1 has reached.
template <class Descent, class = void>
struct SeesAllGradients : std::false_type {};
template <class Descent>
struct SeesAllGradients<Descent, std::enable_if_t<Descent::sees_all_gradients>> : std::true_type {};

/// agrees_with(other): whether the settings that all groups must share are the same.
template <class Descent, class = void>
struct HasAgreesWith : std::false_type {};
template <class Descent>
struct HasAgreesWith<Descent,
                     std::void_t<decltype(std::declval<const Descent&>().agrees_with(std::declval<const Descent&>()))>>
    : std::true_type {};

/// Perturbs every default_interval steps, unless the program sets another interval.
template <class Descent, class = void>
struct HasDefaultInterval : std::false_type {};
template <class Descent>
struct HasDefaultInterval<Descent, std::enable_if_t<(Descent::default_interval > 0)>> : std::true_type {};

/// after_step(lr): changes the weights once more after the base's step, if needs_lr() is true.
template <class Descent, class = void>
struct HasAfterStep : std::false_type {};
template <class Descent>
struct HasAfterStep<Descent, std::void_t<decltype(std::declval<Descent&>().after_step(double{}))>> : std::true_type {};

}  // namespace detail
STEPPE_NAMESPACE_END
