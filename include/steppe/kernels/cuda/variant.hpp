// The variants in which the kernels are compiled, by what their layers need.
// SPDX-License-Identifier: MIT
#pragma once

#include <type_traits>

#include <steppe/kernels/cuda/block.hpp>
#include <steppe/kernels/cuda/layer.hpp>
#include <steppe/kernels/cuda/plan.hpp>
#include <steppe/kernels/cuda/thread_sum.hpp>
#include <steppe/kernels/formats.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cuda {

/// The format of layers that do not share one.
struct AnyFormat {};

/// What some layer of a launch may need, known to the compiler: the rest compiles away. `OneSum`: see thread_sum.hpp.
template <class OneFormat, bool kMayCentralize, bool kMayFilter, bool kMayScale, class OneSum>
struct Variant {
  using Format = OneFormat;
  using Sum = OneSum;
  static constexpr bool kCentralizes = kMayCentralize, kFilters = kMayFilter, kScales = kMayScale;
  static constexpr int kThings = int{kMayCentralize} + int{kMayFilter} + int{kMayScale};
  /// Vectors that a thread loads before it uses the first. The more a layer needs, the fewer registers are left for
  /// them.
  static constexpr int kBatch = kThings == 0 ? 4 : kThings == 1 ? 2 : 1;
  /// Blocks of 256 threads that a multiprocessor's registers are to hold.
  static constexpr int kResident = std::is_same_v<OneFormat, AnyFormat> ? 2 : kThings > 1 ? 3 : 4;
  /// The same of kernels that add: a pair takes more registers.
  static constexpr int kResidentOfSums = Sum::kInPairs && kThings == 1 ? 3 : kResident;
};

/// Calls body with a value of the format's type.
template <class Body>
STEPPE_DEVICE void with_format(Format format, Body&& body) {
  switch (format) {
    case Format::Float32:
      return body(float());
    case Format::BFloat16:
      return body(BFloat16());
    case Format::Half:
      return body(Half());
    case Format::Float64:
      return;  // in no plan
  }
}
/// The same for a layer of a variant.
template <class Variant, class Body>
STEPPE_DEVICE void with_format_of(Format format, Body&& body) {
  if constexpr (std::is_same_v<typename Variant::Format, AnyFormat>)
    with_format(format, body);
  else
    body(typename Variant::Format());
}

template <class Stored, class Sum, class Body>
void with_variant_of(const Needs& needs, Body&& body) {
  const int count = int{needs.centralization} + int{needs.filter} + int{needs.scale};
  if (count > 1) return body(Variant<Stored, true, true, true, Sum>());
  if (needs.centralization) return body(Variant<Stored, true, false, false, Sum>());
  if (needs.filter) return body(Variant<Stored, false, true, false, Sum>());
  if (needs.scale) return body(Variant<Stored, false, false, true, Sum>());
  body(Variant<Stored, false, false, false, Sum>());
}

/// Calls body with the variant for the layers of a launch. They are few, so that the binary stays small: layers that
/// need more than one thing, or have several formats, share one.
template <class Sum, class Body>
void with_variant(const Needs& needs, Body&& body) {
  // Pairs would not fit into its registers.
  if (needs.several_formats) return body(Variant<AnyFormat, true, true, true, DoubleSum>());
  switch (needs.format) {
    case Format::Float32:
      return with_variant_of<float, Sum>(needs, body);
    case Format::BFloat16:
      return with_variant_of<BFloat16, Sum>(needs, body);
    case Format::Half:
      return with_variant_of<Half, Sum>(needs, body);
    case Format::Float64:
      return;  // in no plan
  }
}

}  // namespace kernels::cuda
STEPPE_NAMESPACE_END
