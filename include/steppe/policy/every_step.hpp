// The policy that perturbs every step, and what a policy may have.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
/// Which steps are perturbed.
namespace policy {

/// Perturbs every step. A policy chooses the steps on which the weights are perturbed; the others are plain steps of
/// the base optimizer. It has any of
///
/// - `bool perturbs(int64_t step) const`: called before pass 1;
/// - `double radius(int64_t step) const`: the factor of rho;
/// - `bool decides(int64_t step, double squared_norm)`: called after pass 1, with |g|^2 over all groups; where that is
///   not finite the step is plain, and it is not called;
/// - `begin()` and `commit()`: a step begins; it has been made, so that what decides() has learned takes effect;
/// - `validate()`, `fields()`: as a link's.
///
/// every(k), from_step(n) and last(share, total) of the optimizer apply as well.
class EveryStep {};

}  // namespace policy

namespace detail {

template <class Policy, class = void>
struct HasPerturbs : std::false_type {};
template <class Policy>
struct HasPerturbs<Policy, std::void_t<decltype(std::declval<const Policy&>().perturbs(int64_t{}))>> : std::true_type {
};

template <class Policy, class = void>
struct HasRadius : std::false_type {};
template <class Policy>
struct HasRadius<Policy, std::void_t<decltype(std::declval<const Policy&>().radius(int64_t{}))>> : std::true_type {};

template <class Policy, class = void>
struct HasDecides : std::false_type {};
template <class Policy>
struct HasDecides<Policy, std::void_t<decltype(std::declval<Policy&>().decides(int64_t{}, double{}))>>
    : std::true_type {};

template <class Policy, class = void>
struct HasFirstStep : std::false_type {};
template <class Policy>
struct HasFirstStep<Policy, std::void_t<decltype(std::declval<const Policy&>().first_step())>> : std::true_type {};

/// Before pass 1.
template <class Policy>
bool perturbs(const Policy& policy, int64_t step) {
  if constexpr (HasPerturbs<Policy>::value) return policy.perturbs(step);
  return true;
}

template <class Policy>
double radius(const Policy& policy, int64_t step) {
  if constexpr (HasRadius<Policy>::value) return policy.radius(step);
  return 1.0;
}

}  // namespace detail
STEPPE_NAMESPACE_END
