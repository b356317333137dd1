// What an ascent direction is made of: links that a user chains, and the recipe they add up to.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <type_traits>
#include <utility>
#include <vector>

#include <steppe/kernels/ops.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN

/// A link in ATen operations: rewrites the directions of one parameter group, given its parameters.
///
/// Any callable of this signature is an ascent link. It runs once per step and parameter group under no-grad, before
/// the fused links, on the tensors of the group that have a gradient and are perturbed. It may write in place (a
/// direction never shares memory with the gradient) or assign new tensors of the same shape. A link that throws stops
/// the step before anything has changed.
using CustomLink = std::function<void(std::vector<at::Tensor>& direction, const std::vector<at::Tensor>& params)>;

/// The canonical order of the links; those of a Chain are listed in it.
enum class Stage : int { Custom = 0, Centralize = 1, Filter = 2, Scale = 3 };

/// The direction of one parameter group at one step.
struct Direction {
  Recipe recipe;
  std::vector<CustomLink> links;
};

namespace detail {

template <class Link, class = void>
struct IsFusedLink : std::false_type {};
template <class Link>
struct IsFusedLink<Link,
                   std::void_t<decltype(std::declval<const Link&>().describe(std::declval<Recipe&>(), int64_t{}))>>
    : std::true_type {};

template <class Link>
inline constexpr bool is_custom_link =
    std::is_invocable_v<Link&, std::vector<at::Tensor>&, const std::vector<at::Tensor>&>;

template <class Link, class = void>
struct IsChain : std::false_type {};
template <class Link>
struct IsChain<Link, std::enable_if_t<Link::is_chain>> : std::true_type {};

template <class Link>
inline constexpr bool is_link = IsFusedLink<Link>::value || is_custom_link<Link> || IsChain<Link>::value;

template <class Link>
constexpr Stage stage_of() {
  if constexpr (IsFusedLink<Link>::value) {
    return Link::stage;
  } else {
    return Stage::Custom;
  }
}

template <class Link, class = void>
struct HasDefaultRho : std::false_type {};
template <class Link>
struct HasDefaultRho<Link, std::void_t<decltype(std::declval<const Link&>().default_rho())>> : std::true_type {};

template <class Part, class = void>
struct HasValidate : std::false_type {};
template <class Part>
struct HasValidate<Part, std::void_t<decltype(std::declval<const Part&>().validate())>> : std::true_type {};

/// Checks the settings of a link or a descent that has any.
template <class Part>
void validate(const Part& part) {
  if constexpr (HasValidate<Part>::value) part.validate();
}

template <class Part, class = void>
struct HasVaries : std::false_type {};
template <class Part>
struct HasVaries<Part, std::void_t<decltype(std::declval<const Part&>().varies())>> : std::true_type {};

/// A link that says of itself that its recipe depends on the step.
template <class Part>
bool varies(const Part& part) {
  if constexpr (HasVaries<Part>::value) {
    return part.varies();
  } else {
    return false;
  }
}

/// Calls visit on the link, or on every link of a chain.
template <class Ascent, class Visitor>
void for_each_link(Ascent& ascent, Visitor&& visit) {
  if constexpr (IsChain<Ascent>::value) {
    ascent.for_each_link(visit);
  } else {
    visit(ascent);
  }
}

}  // namespace detail

/// The direction that `ascent` describes at `step`; the ascent must outlive it.
template <class Ascent>
Direction direction_of(Ascent& ascent, int64_t step = 0) {
  static_assert(detail::is_link<Ascent>,
                "steppe: an ascent link has describe(steppe::Recipe&, int64_t step), or is callable as "
                "(std::vector<at::Tensor>& direction, const std::vector<at::Tensor>& params)");
  Direction direction;
  detail::for_each_link(ascent, [&](auto& link) {
    using Link = std::remove_reference_t<decltype(link)>;
    if constexpr (detail::IsFusedLink<Link>::value) {
      link.describe(direction.recipe, step);
    } else {
      direction.links.emplace_back(std::ref(link));
    }
  });
  return direction;
}

/// The radius that the links' sources use: that of the last link which names one, else 0.05 (2010.01412).
template <class Ascent>
double default_rho_of(Ascent& ascent) {
  double rho = 0.05;
  detail::for_each_link(ascent, [&](auto& link) {
    if constexpr (detail::HasDefaultRho<std::remove_reference_t<decltype(link)>>::value) rho = link.default_rho();
  });
  return rho;
}

STEPPE_NAMESPACE_END
