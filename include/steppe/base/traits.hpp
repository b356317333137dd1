// What a sharpness-aware optimizer needs to know of its base's type.
// SPDX-License-Identifier: MIT
#pragma once

#include <type_traits>
#include <utility>

#include <steppe/version.hpp>

namespace torch::optim {
class Adam;
class AdamW;
class Adagrad;
class LBFGS;
class RMSprop;
class SGD;
struct AdamOptions;
struct AdamWOptions;
struct AdagradOptions;
struct LBFGSOptions;
struct RMSpropOptions;
struct SGDOptions;
}  // namespace torch::optim

STEPPE_NAMESPACE_BEGIN

namespace detail {

/// The type that LibTorch's optimizers make of options in braces.
template <class Base>
struct OptionsOf {
  using Type = void;
};
template <>
struct OptionsOf<torch::optim::Adam> {
  using Type = torch::optim::AdamOptions;
};
template <>
struct OptionsOf<torch::optim::AdamW> {
  using Type = torch::optim::AdamWOptions;
};
template <>
struct OptionsOf<torch::optim::Adagrad> {
  using Type = torch::optim::AdagradOptions;
};
template <>
struct OptionsOf<torch::optim::LBFGS> {
  using Type = torch::optim::LBFGSOptions;
};
template <>
struct OptionsOf<torch::optim::RMSprop> {
  using Type = torch::optim::RMSpropOptions;
};
template <>
struct OptionsOf<torch::optim::SGD> {
  using Type = torch::optim::SGDOptions;
};

/// Bases that have default options.
template <class Base, class Parameters>
using WithDefaults = std::enable_if_t<std::is_constructible_v<Base, Parameters>>;

/// Bases that check themselves what a CUDA graph would repeat wrongly.
template <class Base, class = void>
struct ChecksCapture : std::false_type {};
template <class Base>
struct ChecksCapture<Base, std::void_t<decltype(std::declval<const Base&>().check_capture())>> : std::true_type {};

/// Bases whose count of steps may be ahead of state().
template <class Base, class = void>
struct CountsOnDevices : std::false_type {};
template <class Base>
struct CountsOnDevices<Base, std::void_t<decltype(std::declval<Base&>().synchronize_counts())>> : std::true_type {};

/// Others whose update depends on a number of steps that the host counts; a CUDA graph would repeat one of them.
template <class Base>
inline constexpr bool counts_on_the_host =
    std::is_base_of_v<torch::optim::Adam, Base> || std::is_base_of_v<torch::optim::AdamW, Base> ||
    std::is_base_of_v<torch::optim::Adagrad, Base> || std::is_base_of_v<torch::optim::LBFGS, Base>;

/// The optimizer that checkpoints of a base name: one with the formulas of another has the typedef CheckpointBase.
template <class Base, class = void>
struct CheckpointBase {
  using Type = Base;
};
template <class Base>
struct CheckpointBase<Base, std::void_t<typename Base::CheckpointBase>> {
  using Type = typename Base::CheckpointBase;
};

/// Bases that hold the state of only a part of the parameters.
template <class Base, class = void>
struct DividesState : std::false_type {};
template <class Base>
struct DividesState<Base, std::enable_if_t<Base::divides_state>> : std::true_type {};

/// LBFGS and similar ones: step() has no default argument because one step needs several evaluations.
template <class Base, class = void>
struct StepsWithoutClosure : std::false_type {};
template <class Base>
struct StepsWithoutClosure<Base, std::void_t<decltype(std::declval<Base&>().step())>> : std::true_type {};

}  // namespace detail
STEPPE_NAMESPACE_END
