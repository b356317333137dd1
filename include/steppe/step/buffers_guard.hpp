// A module's buffers (BatchNorm statistics, counters, custom ones) restored after a pass that must not change them.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace step {

/// Copies of large buffers that are kept from one guard to the next: while LibTorch counts no change of a buffer
/// (masks, tables), its copy is valid, and guarding it costs only memory.
class KeptBuffers {
 public:
  int64_t bytes() const {
    int64_t sum = 0;
    for (const auto& item : copies_)
      for (const auto& copy : item.second) sum += static_cast<int64_t>(copy->tensor.nbytes());
    return sum;
  }
  void release() { copies_.clear(); }

 private:
  friend class BuffersGuard;
  struct Copy {
    at::Tensor tensor;
    const void* of = nullptr;  ///< the buffer's memory
    int64_t version = 0;
  };
  // Of a guard before pass 1 and one after it.
  std::unordered_map<const c10::TensorImpl*, std::vector<std::shared_ptr<Copy>>> copies_;
};

/// Copies the buffers when made; at the end of its scope or by restore() those that were changed are written back, bit
/// for bit, in place: every tensor keeps its address. One that cannot be written does not stop the others.
///
/// Memory: one copy of the buffers while it lives. Copies of buffers over 256 KiB stay in `kept`, if given, which
/// belongs to these buffers; changes of those that LibTorch does not count (through data() or a pointer) are detected
/// by samples.
class BuffersGuard {
 public:
  explicit BuffersGuard(const std::vector<at::Tensor>& buffers, KeptBuffers* kept = nullptr) {
    const c10::NoGradGuard no_grad;
    saved_.reserve(buffers.size());
    for (const at::Tensor& buffer : buffers) {
      if (!buffer.defined()) continue;
      Saved& saved = saved_.emplace_back();
      saved.buffer = buffer;
      const at::Tensor elements = elements_of(buffer);
      if (kept != nullptr && counts_changes(elements))
        keep(saved, elements, kept->copies_[buffer.unsafeGetTensorImpl()]);
      else
        saved.copy = copy_of(elements);
    }
  }

  BuffersGuard(const BuffersGuard&) = delete;
  BuffersGuard& operator=(const BuffersGuard&) = delete;

  ~BuffersGuard() {
    try {
      restore();
    } catch (const std::exception& error) {
      TORCH_WARN(error.what());
    }
  }

  void restore() {
    const c10::NoGradGuard no_grad;
    std::string failures;
    for (const Saved& saved : std::exchange(saved_, {})) try {
        put_back(saved);
      } catch (const std::exception& error) {
        failures += error.what();
      }
    TORCH_CHECK(failures.empty(), "steppe: buffers of the model could not be restored: ", failures);
  }

  /// Leaves the buffers as they are now.
  void dismiss() { saved_.clear(); }

 private:
  /// From this size on it is worth checking whether a buffer has changed. Kernels write to small ones (running
  /// statistics) without counting it.
  static constexpr size_t kLarge = size_t{256} << 10;

  struct Saved {
    at::Tensor buffer;
    std::shared_ptr<KeptBuffers::Copy> copy;
    bool is_kept = false;
  };

  static std::shared_ptr<KeptBuffers::Copy> copy_of(const at::Tensor& elements) {
    auto copy = std::make_shared<KeptBuffers::Copy>();
    copy->tensor = elements.clone();
    return copy;
  }

  static bool counts_changes(const at::Tensor& buffer) {
    return buffer.layout() == at::kStrided && buffer.nbytes() > kLarge && !buffer.is_inference();
  }

  /// The elements with memory of their own: expanded dimensions once, overlapping windows as one range.
  static at::Tensor elements_of(const at::Tensor& tensor) {
    const at::Tensor buffer = tensor.detach();
    if (buffer.layout() != at::kStrided || buffer.numel() == 0) return buffer;
    std::vector<int64_t> sizes = buffer.sizes().vec(), strides = buffer.strides().vec();
    std::vector<std::pair<int64_t, int64_t>> by_stride;
    int64_t reach = 1;
    bool expanded = false;
    for (size_t d = 0; d < sizes.size(); ++d) {
      expanded = expanded || (strides[d] == 0 && sizes[d] > 1);
      if (strides[d] == 0) sizes[d] = 1;
      if (sizes[d] > 1) by_stride.emplace_back(strides[d], sizes[d]);
      reach += (sizes[d] - 1) * strides[d];
    }
    std::sort(by_stride.begin(), by_stride.end());
    int64_t covered = 1;
    bool overlaps = false;
    for (const auto& [stride, size] : by_stride) {
      overlaps = overlaps || stride < covered;
      covered = (size - 1) * stride + covered;
    }
    if (overlaps) return buffer.as_strided({reach}, {1});
    return expanded ? buffer.as_strided(sizes, strides) : buffer;
  }

  static void keep(Saved& saved, const at::Tensor& elements, std::vector<std::shared_ptr<KeptBuffers::Copy>>& copies) {
    saved.is_kept = true;
    for (const auto& copy : copies)
      if (is_current(elements, *copy)) saved.copy = copy;
    if (saved.copy) return;
    for (const auto& copy : copies)
      if (copy.use_count() == 1 && copy->tensor.sizes() == elements.sizes() &&
          copy->tensor.options().type_equal(elements.options()) && copy->tensor.device() == elements.device()) {
        copy->tensor.copy_(elements);
        saved.copy = copy;
        break;
      }
    if (!saved.copy) saved.copy = copies.emplace_back(copy_of(elements));
    saved.copy->of = elements.data_ptr();
    saved.copy->version = elements._version();
  }

  /// Module::to() gives a buffer other memory under the same count of changes.
  static bool is_current(const at::Tensor& elements, const KeptBuffers::Copy& copy) {
    return copy.tensor.sizes() == elements.sizes() && copy.tensor.options().type_equal(elements.options()) &&
           copy.tensor.device() == elements.device() && copy.of == elements.data_ptr() &&
           copy.version == int64_t{elements._version()} && has_equal_samples(elements, copy.tensor);
  }

  /// Only of memory on the CPU; elsewhere the counted changes must suffice.
  static bool has_equal_samples(const at::Tensor& a, const at::Tensor& b) {
    if (!a.device().is_cpu() || a.strides() != b.strides() || !a.is_non_overlapping_and_dense()) return true;
    constexpr size_t kSamples = 64, kBytes = 64;
    const auto *left = static_cast<const char*>(a.data_ptr()), *right = static_cast<const char*>(b.data_ptr());
    for (size_t k = 0; k < kSamples; ++k) {
      const size_t at = (a.nbytes() - kBytes) / (kSamples - 1) * k;
      if (std::memcmp(left + at, right + at, kBytes) != 0) return false;
    }
    return true;
  }

  static bool has_equal_bytes(const at::Tensor& a, const at::Tensor& b) {
    return a.layout() == at::kStrided && a.sizes() == b.sizes() && a.dtype() == b.dtype() && a.device().is_cpu() &&
           b.device().is_cpu() && a.strides() == b.strides() && a.is_non_overlapping_and_dense() &&
           std::memcmp(a.data_ptr(), b.data_ptr(), a.nbytes()) == 0;
  }

  static void put_back(const Saved& saved) {
    const at::Tensor elements = elements_of(saved.buffer), &copy = saved.copy->tensor;
    if (saved.is_kept ? is_current(elements, *saved.copy) : has_equal_bytes(elements, copy)) return;
    TORCH_CHECK(elements.sizes() == copy.sizes(), "one of shape ", copy.sizes(), " has become ", elements.sizes(),
                "; write to buffers in place. ");
    std::optional<c10::InferenceMode> inference;
    if (elements.is_inference()) inference.emplace();
    elements.copy_(copy);
    if (!saved.is_kept) return;
    saved.copy->of = elements.data_ptr();
    saved.copy->version = elements._version();
  }

  std::vector<Saved> saved_;
};

}  // namespace step
STEPPE_NAMESPACE_END
