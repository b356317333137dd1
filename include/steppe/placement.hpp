// Where perturbed weights live, and the way back to where the weights were.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>

#include <cstdint>
#include <unordered_map>
#include <utility>

namespace steppe {

/// Where w + e is written. The parameter's own memory is untouched in the first two cases: its tensor is pointed at the
/// perturbed weights and back again, so that w needs no copy.
enum class Placement : int64_t {
  Auto,      ///< the first of those below that is safe, for each tensor by itself
  Gradient,  ///< the memory of the first gradient, which is dead after the ascent; no memory of its own
  Buffer,    ///< a second buffer, kept between steps
  InPlace,   ///< the parameter's own memory, with a copy of w, kept between steps; for memory that others share
};

namespace detail {

/// Nobody else sees the memory of `tensor`, it was allocated by LibTorch, and nothing is recorded of it.
inline bool has_memory_of_its_own(const at::Tensor& tensor) {
  return tensor.layout() == at::kStrided && !tensor.requires_grad() && tensor.storage().use_count() == 1 &&
         tensor.storage().allocator() != nullptr;
}

}  // namespace detail

/// One parameter with its memory and the buffer that it may need.
class PlacedWeights {
 public:
  /// Takes the parameter up as it is now and chooses: the wish, if it is safe, else the next one that is.
  /// `spare`: the direction's memory may be overwritten.
  Placement choose(const at::Tensor& param, Placement wish, const at::Tensor& direction, bool spare) {
    if (!is_home_of(param)) home_ = param.variable_data();
    // The parameter and its home.
    const bool shared = param.storage().use_count() != 2 || !param.is_non_overlapping_and_dense();
    const bool fits = spare && direction.sizes() == param.sizes() && direction.strides() == param.strides() &&
                      direction.dtype() == param.dtype() && direction.device() == param.device();
    placement_ = wish == Placement::Auto ? Placement::Gradient : wish;
    if (placement_ == Placement::Gradient && !fits) placement_ = Placement::Buffer;
    if (shared) placement_ = Placement::InPlace;
    return placement_;
  }

  /// Where w + e goes. What may be overwritten is copied here.
  at::Tensor prepare(const at::Tensor& param, const at::Tensor& direction) {
    if (placement_ == Placement::Gradient) return direction;
    const bool usable = buffer_.defined() && buffer_.sizes() == param.sizes() && buffer_.dtype() == param.dtype() &&
                        buffer_.device() == param.device() &&
                        (placement_ == Placement::InPlace || buffer_.strides() == param.strides());
    if (!usable) buffer_ = at::empty_like(home_);
    if (placement_ == Placement::Buffer) return buffer_;
    buffer_.copy_(home_);
    return param;
  }

  /// After the ascent: the parameter is w + e.
  void enter(const at::Tensor& param, const at::Tensor& destination) const {
    if (placement_ != Placement::InPlace) point(param, destination);
  }

  /// The parameter is w again.
  void leave(const at::Tensor& param) const {
    if (placement_ == Placement::InPlace)
      param.detach().copy_(buffer_);
    else
      point(param, home_);
  }

  Placement placement() const { return placement_; }
  int64_t bytes() const { return buffer_.defined() ? static_cast<int64_t>(buffer_.nbytes()) : 0; }

 private:
  bool is_home_of(const at::Tensor& param) const {
    return home_.defined() && home_.storage().unsafeGetStorageImpl() == param.storage().unsafeGetStorageImpl() &&
           home_.storage_offset() == param.storage_offset() && home_.sizes() == param.sizes() &&
           home_.strides() == param.strides() && home_.dtype() == param.dtype();
  }

  /// Graphs that were recorded over the old values notice, as they would if the values had been overwritten.
  static void point(const at::Tensor& param, const at::Tensor& memory) {
    param.set_data(memory);
    param.unsafeGetTensorImpl()->bump_version();
  }

  at::Tensor home_, buffer_;
  Placement placement_ = Placement::Auto;
};

/// The parameters of an optimizer, by tensor.
class PlacedParameters {
 public:
  PlacedWeights& of(const at::Tensor& param) { return placed_[param.unsafeGetTensorImpl()]; }

  /// What was chosen last; Auto for a parameter that was never perturbed.
  Placement placement(const at::Tensor& param) const {
    const auto found = placed_.find(param.unsafeGetTensorImpl());
    return found == placed_.end() ? Placement::Auto : found->second.placement();
  }
  int64_t bytes() const {
    int64_t sum = 0;
    for (const auto& item : placed_) sum += item.second.bytes();
    return sum;
  }
  void release() { placed_.clear(); }

 private:
  std::unordered_map<const c10::TensorImpl*, PlacedWeights> placed_;
};

}  // namespace steppe
