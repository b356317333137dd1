// Several ascent links as one.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <tuple>
#include <utility>

#include <steppe/direction.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace ascent {

/// Links applied in sequence: your own callables first, then Centralize, ZScoreFilter, AdaptiveScale.
///
/// The fused links run as one pass, whatever their number.
///
///     using CentralizedZSharp = steppe::SharpnessAware<torch::optim::SGD, Chain<Centralize, ZScoreFilter>>;
template <class... Links>
class Chain {
  static_assert(sizeof...(Links) > 0, "steppe: a Chain needs at least one link");
  static_assert((detail::is_link<Links> && ...),
                "steppe: an ascent link has describe(steppe::Recipe&, int64_t step), or is callable as "
                "(std::vector<at::Tensor>& direction, const std::vector<at::Tensor>& params)");

  static_assert(!(detail::IsChain<Links>::value || ...),
                "steppe: a Chain holds links, not chains; list them all in one");

  static constexpr bool only_the_first_is_ahead() {
    constexpr bool ahead[] = {detail::is_ahead<Links>...};
    for (size_t i = 1; i < sizeof...(Links); ++i)
      if (ahead[i]) return false;
    return true;
  }
  static_assert(
      only_the_first_is_ahead(),
      "steppe: a link that knows the direction before pass 1 (Momentum, LastGradient) must be the first of a Chain, "
      "and the only one of its kind: it replaces the gradient");

  static constexpr bool in_canonical_order() {
    constexpr Stage stages[] = {detail::stage_of<Links>()...};
    for (size_t i = 1; i < sizeof...(Links); ++i) {
      if (stages[i] < stages[i - 1]) return false;
      if (stages[i] == stages[i - 1] && stages[i] != Stage::Custom) return false;
    }
    return true;
  }
  static_assert(in_canonical_order(),
                "steppe: the links of a Chain are listed in the order custom, Centralize, ZScoreFilter, AdaptiveScale, "
                "each at most once");

 public:
  /// @name For the step
  ///@{

  /// Called by the step: see CONTRIBUTING.md, "Adding an ascent link".
  static constexpr bool is_chain = true;
  template <template <class> class Predicate>
  static constexpr bool any() {
    return (Predicate<Links>::value || ...);
  }
  ///@}

  /// The links with their default options, or as given.
  ///@{
  Chain() = default;
  explicit Chain(Links... links) : links_(std::move(links)...) {}
  ///@}

  /// The link of the given type: `chain.get<ZScoreFilter>().percentile(0.9)`.
  ///@{
  template <class Link>
  Link& get() {
    return std::get<Link>(links_);
  }
  template <class Link>
  const Link& get() const {
    return std::get<Link>(links_);
  }
  ///@}

  /// Calls visit(link) on each link, in their order.
  template <class Visitor>
  void for_each_link(Visitor&& visit) {
    std::apply([&](auto&... link) { (visit(link), ...); }, links_);
  }

 private:
  std::tuple<Links...> links_;
};

/// Chain(link, ...) needs no types.
template <class... Links>
Chain(Links...) -> Chain<Links...>;

}  // namespace ascent
STEPPE_NAMESPACE_END
