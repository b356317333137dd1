// What an ascent direction is made of: links that a user chains, and the recipe they add up to.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

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
  Recipe recipe;                  ///< what the fused links do
  std::vector<CustomLink> links;  ///< those in ATen operations, which run first
  /// The start of a direction that is known before pass 1, for each parameter; undefined where there is none yet. The
  /// only pass of a step is then made at w + e. Empty: the direction starts from the gradient.
  std::function<at::Tensor(const at::Tensor& param)> source;
};

namespace detail {

/// Throws unless an option's value is one of its first `count` enumerators, as a damaged checkpoint's may not be.
template <class Enumeration>
void check_enumerator(const char* option, Enumeration value, int64_t count) {
  const int64_t number = static_cast<int64_t>(value);
  TORCH_CHECK(number >= 0 && number < count, "steppe: ", option, " has the value ", number,
              ", which is none of its enumerators; if it was loaded, the checkpoint is damaged");
}

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
struct IsAhead : std::false_type {};
template <class Link>
struct IsAhead<Link, std::enable_if_t<Link::is_ahead>> : std::true_type {};

/// The link gives a direction that is known before pass 1: `direction_of(param)`, with `points_against` true where the
/// ascent is along its negative, and learn(params, gradients) after the pass.
template <class Link>
inline constexpr bool is_ahead = IsAhead<Link>::value;

template <class Link, class = void>
struct IsChain : std::false_type {};
template <class Link>
struct IsChain<Link, std::enable_if_t<Link::is_chain>> : std::true_type {};

template <class Link>
inline constexpr bool is_link =
    IsFusedLink<Link>::value || is_custom_link<Link> || is_ahead<Link> || IsChain<Link>::value;

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

template <class Part, class = void>
struct HasBind : std::false_type {};
template <class Part>
struct HasBind<Part, std::void_t<decltype(std::declval<Part&>().bind(std::vector<at::Tensor>()))>> : std::true_type {};

template <class Part, class = void>
struct HasCommit : std::false_type {};
template <class Part>
struct HasCommit<Part, std::void_t<decltype(std::declval<Part&>().commit())>> : std::true_type {};

template <class Part, class = void>
struct HasForget : std::false_type {};
template <class Part>
struct HasForget<Part, std::void_t<decltype(std::declval<Part&>().forget())>> : std::true_type {};

template <class Part, class = void>
struct HasBytes : std::false_type {};
template <class Part>
struct HasBytes<Part, std::void_t<decltype(std::declval<const Part&>().bytes())>> : std::true_type {};

template <class Part, class = void>
struct KeepsState : std::false_type {};
template <class Part>
struct KeepsState<Part, std::enable_if_t<Part::keeps_state>> : std::true_type {};

template <class Part, class = void>
struct HasBegin : std::false_type {};
template <class Part>
struct HasBegin<Part, std::void_t<decltype(std::declval<Part&>().begin())>> : std::true_type {};

/// look_at(base, group): the link reads the base optimizer before a step.
template <class Link, class Base, class = void>
struct LooksAt : std::false_type {};
template <class Link, class Base>
struct LooksAt<Link, Base, std::void_t<decltype(std::declval<Link&>().look_at(std::declval<Base&>(), size_t{}))>>
    : std::true_type {};

/// Checks the settings of a link or a descent that has any.
template <class Part>
void validate(const Part& part) {
  if constexpr (HasValidate<Part>::value) part.validate();
}

template <class Part, class = void>
struct HasVaries : std::false_type {};
template <class Part>
struct HasVaries<Part, std::void_t<decltype(std::declval<const Part&>().varies())>> : std::true_type {};

/// Whether the link declares that its recipe depends on the step.
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

template <class Ascent, template <class> class Predicate>
constexpr bool any_link() {
  if constexpr (IsChain<Ascent>::value)
    return Ascent::template any<Predicate>();
  else
    return Predicate<Ascent>::value;
}
template <class Link>
using IsAheadOf = IsAhead<Link>;
template <class Link>
using KeepsStateOf = KeepsState<Link>;

/// One of its links gives a direction that is known before pass 1.
template <class Ascent>
inline constexpr bool is_ahead_of_pass_one = any_link<Ascent, IsAheadOf>();
/// One of its links keeps state from step to step.
template <class Ascent>
inline constexpr bool keeps_state = any_link<Ascent, KeepsStateOf>();

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
    if constexpr (detail::IsFusedLink<Link>::value) link.describe(direction.recipe, step);
    if constexpr (detail::is_custom_link<Link>) direction.links.emplace_back(std::ref(link));
    if constexpr (detail::is_ahead<Link>) {
      direction.source = [&link](const at::Tensor& param) { return link.direction_of(param); };
      direction.recipe.against = Link::points_against;
    }
  });
  return direction;
}

/// The default radius: that of the last link with a default_rho(), else 0.05 (arXiv 2010.01412).
template <class Ascent>
double default_rho_of(Ascent& ascent) {
  double rho = 0.05;
  detail::for_each_link(ascent, [&](auto& link) {
    if constexpr (detail::HasDefaultRho<std::remove_reference_t<decltype(link)>>::value) rho = link.default_rho();
  });
  return rho;
}

STEPPE_NAMESPACE_END
