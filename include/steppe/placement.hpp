// Where perturbed weights are stored, and how the weights are restored.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/Storage.h>
#include <c10/core/TensorImpl.h>

#include <cstdint>
#include <unordered_map>
#include <utility>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN

/// Where w + e is written. The parameter's own memory is untouched in the first two cases: its tensor is pointed at the
/// perturbed weights and back again, so that w needs no copy.
enum class Placement : int64_t {
  Auto,      ///< the first of those below that is safe, for each tensor by itself
  Gradient,  ///< the memory of the first gradient, not needed after the ascent; no additional memory
  Buffer,    ///< a second buffer, kept between steps
  InPlace,   ///< the parameter's own memory, with a copy of w, kept between steps; for shared memory
};

namespace detail {

/// Nothing else uses the memory of `tensor`, LibTorch allocated it, and autograd does not record it.
inline bool has_memory_of_its_own(const at::Tensor& tensor) {
  return tensor.layout() == at::kStrided && !tensor.requires_grad() && tensor.storage().use_count() == 1 &&
         tensor.storage().allocator() != nullptr;
}

}  // namespace detail

/// One parameter that is moved to w + e and back.
class MovedWeights {
 public:
  /// Points the parameter at `memory`, which has its sizes, strides, type and device. No tensor is made.
  static MovedWeights elsewhere(const at::Tensor& param, const at::Tensor& memory) {
    MovedWeights moved(param);
    moved.storage_ = param.storage();
    moved.offset_ = param.storage_offset();
    point(param, memory.storage(), memory.storage_offset());
    return moved;
  }
  /// The parameter is about to be overwritten; `copy` holds w.
  static MovedWeights in_place(const at::Tensor& param, const at::Tensor& copy) {
    param.unsafeGetTensorImpl()->bump_version();
    MovedWeights moved(param);
    moved.copy_ = copy;
    return moved;
  }

  /// Makes the parameter w again.
  void restore() const {
    if (copy_.defined())
      param_.detach().copy_(copy_);
    else
      point(param_, storage_, offset_);
  }

 private:
  explicit MovedWeights(at::Tensor param) : param_(std::move(param)) {}

  /// Autograd graphs over the old values detect this, as if the values had been overwritten.
  static void point(const at::Tensor& param, const c10::Storage& storage, int64_t offset) {
    c10::TensorImpl* const impl = param.unsafeGetTensorImpl();
    impl->bump_version();  // first: it throws for inference tensors
    if (!impl->allow_tensor_metadata_change()) impl->set_allow_tensor_metadata_change(true);  // detach() clears it
    impl->set_storage_keep_dtype(storage);
    impl->set_storage_offset(offset);
  }

  at::Tensor param_, copy_;
  c10::Storage storage_;
  int64_t offset_ = 0;
};

/// The choice for one parameter, and the buffer that it may need.
class PlacedWeights {
 public:
  /// The wish if it is safe, else the next placement that is. `spare`: the direction's memory may be overwritten.
  Placement choose(const at::Tensor& param, Placement wish, const at::Tensor& direction, bool spare) {
    const bool shared = param.storage().use_count() != 1 || !param.is_non_overlapping_and_dense();
    const bool fits = spare && direction.sizes() == param.sizes() && same_strides(direction, param) &&
                      direction.dtype() == param.dtype() && direction.device() == param.device();
    placement_ = wish == Placement::Auto ? Placement::Gradient : wish;
    if (placement_ == Placement::Gradient && !fits) placement_ = Placement::Buffer;
    if (shared) placement_ = Placement::InPlace;
    return placement_;
  }

  /// The tensor to write w + e to. For Placement::InPlace, w is copied to the buffer.
  at::Tensor destination(const at::Tensor& param, const at::Tensor& direction) {
    if (placement_ == Placement::Gradient) return direction;
    const bool usable = buffer_.defined() && buffer_.sizes() == param.sizes() && buffer_.dtype() == param.dtype() &&
                        buffer_.device() == param.device() &&
                        (placement_ == Placement::InPlace || buffer_.strides() == param.strides());
    if (!usable) buffer_ = at::empty_like(param.detach());
    if (placement_ == Placement::Buffer) return buffer_;
    buffer_.copy_(param.detach());
    return param;
  }

  /// What choose() returned last.
  Placement placement() const { return placement_; }
  /// w + e (Placement::Buffer) or the copy of w (InPlace), kept between steps; undefined if there is none.
  const at::Tensor& buffer() const { return buffer_; }
  /// Memory of the buffer, in bytes.
  int64_t bytes() const { return buffer_.defined() ? static_cast<int64_t>(buffer_.nbytes()) : 0; }

 private:
  /// The stride of a dimension of size 1 does not matter.
  static bool same_strides(const at::Tensor& a, const at::Tensor& b) {
    for (int64_t d = 0; d < a.dim(); ++d)
      if (a.size(d) != 1 && a.stride(d) != b.stride(d)) return false;
    return true;
  }

  at::Tensor buffer_;
  Placement placement_ = Placement::Auto;
};

/// The placements of an optimizer's parameters. The buffer of a parameter that no longer exists is kept until
/// release().
class PlacedParameters {
 public:
  /// The entry of a parameter; a new one at the first call.
  PlacedWeights& of(const at::Tensor& param) { return placed_[param.unsafeGetTensorImpl()]; }

  /// The placement that was chosen last; Auto for a parameter that was never perturbed.
  Placement placement(const at::Tensor& param) const {
    const auto found = placed_.find(param.unsafeGetTensorImpl());
    return found == placed_.end() ? Placement::Auto : found->second.placement();
  }
  /// Memory of all buffers, in bytes.
  int64_t bytes() const {
    int64_t sum = 0;
    for (const auto& item : placed_) sum += item.second.bytes();
    return sum;
  }
  /// Frees the buffers and forgets all parameters.
  void release() { placed_.clear(); }

 private:
  std::unordered_map<const c10::TensorImpl*, PlacedWeights> placed_;
};

STEPPE_NAMESPACE_END
