// The parameters, buffers and gradients of the optimizers that take part in a recording.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/TensorImpl.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include <steppe/step/participant.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace step {

/// A parameter or a buffer of an attached module. When operators are called again it is itself.
struct Source {
  at::Tensor tensor;
  uint64_t optimizers = 0;
  bool is_buffer = false;
  int64_t changes = 0;  ///< of a parameter, as far as operators made them
};

/// Finds sources by identity and by memory.
class Sources {
 public:
  const std::vector<Participant*>& participants() const { return participants_; }

  /// False: 64 others take part already.
  bool add(Participant& participant) {
    uint64_t taken = 0;
    for (const Participant* other : participants_) taken |= other->bit;
    participant.bit = 1;
    while (participant.bit != 0 && (taken & participant.bit) != 0) participant.bit <<= 1;
    if (participant.bit == 0) return false;
    participants_.push_back(&participant);
    learn();
    return true;
  }

  void remove(Participant& participant) {
    for (size_t i = 0; i < participants_.size(); ++i)
      if (participants_[i] == &participant) participants_.erase(participants_.begin() + static_cast<ptrdiff_t>(i));
    participant.bit = 0;
    learn();
  }

  /// Called after the tensors of a participant have changed.
  void learn() {
    std::unordered_map<const c10::TensorImpl*, Source> found;
    memory_.clear();
    for (Participant* participant : participants_) {
      participant->notes.resize(participant->params.size());
      const auto add = [&](const at::Tensor& tensor, bool is_buffer) {
        const Source* before = of(tensor);
        Source& source = found[tensor.unsafeGetTensorImpl()];
        source.tensor = tensor;
        source.optimizers |= participant->bit;
        source.is_buffer = is_buffer;
        if (before != nullptr) source.changes = before->changes;
        if (memory_of(tensor) != nullptr) memory_[memory_of(tensor)] = tensor.unsafeGetTensorImpl();
      };
      for (const at::Tensor& buffer : participant->buffers) add(buffer, true);
      for (const at::Tensor& param : participant->params) add(param, false);
    }
    sources_.swap(found);
  }

  /// Memory can move, for example by Module::to(). Returns whether it has.
  bool learn_memory() {
    bool moved = false;
    for (const auto& source : sources_) {
      const c10::StorageImpl* storage = memory_of(source.second.tensor);
      moved = moved || (storage != nullptr && memory_.count(storage) == 0);
    }
    if (moved) learn();
    return moved;
  }

  /// The number up to which values are from before the last step of one of these optimizers.
  uint64_t last_step_of(uint64_t optimizers) const {
    uint64_t last = 0;
    for (const Participant* participant : participants_)
      if ((participant->bit & optimizers) != 0) last = (std::max)(last, participant->since);
    return last;
  }

  /// The source that this tensor is, or null.
  const Source* of(const at::Tensor& tensor) const {
    const auto found = sources_.find(tensor.unsafeGetTensorImpl());
    return found == sources_.end() ? nullptr : &found->second;
  }

  /// The source whose memory this is, if it still is, or null.
  const Source* in(const c10::StorageImpl* storage) const {
    const auto found = memory_.find(storage);
    if (storage == nullptr || found == memory_.end()) return nullptr;
    const Source& source = sources_.at(found->second);
    return memory_of(source.tensor) == storage ? &source : nullptr;
  }

  bool is_parameter_memory(const c10::StorageImpl* storage) const {
    const Source* source = in(storage);
    return source != nullptr && !source->is_buffer;
  }

  /// Values in this memory have changed; parameters may share it.
  void note_change(const c10::StorageImpl* storage) {
    if (storage != nullptr) note_changes({storage});
  }
  void note_changes(const std::unordered_set<const c10::StorageImpl*>& changed) {
    for (auto& source : sources_)
      if (!source.second.is_buffer && changed.count(memory_of(source.second.tensor)) != 0) ++source.second.changes;
  }

  /// A buffer is about to be written to: what it held before the step is kept.
  void save_buffer(const at::Tensor& buffer) {
    for (Participant* participant : participants_) {
      const Source* source = of(buffer);
      if (source == nullptr || (source->optimizers & participant->bit) == 0) continue;
      at::Tensor& before = participant->buffers_before[buffer.unsafeGetTensorImpl()];
      if (!before.defined()) before = buffer.detach().clone();
    }
  }

  // Gradients that a backward() has left.

  void note_gradient(const at::Tensor& gradient, const Participant& participant) {
    if (memory_of(gradient) == nullptr) return;
    Gradient& known = gradients_[memory_of(gradient)];
    known.storage = gradient.storage().getWeakStorageImpl();
    known.optimizers |= participant.bit;
  }

  bool is_gradient_memory(const c10::StorageImpl* storage) const { return gradients_.count(storage) != 0; }

  void note_write(const Operator& op, const c10::StorageImpl* storage) {
    const auto gradient = gradients_.find(storage);
    if (gradient == gradients_.end()) return;
    for (Participant* participant : participants_)
      if ((participant->bit & gradient->second.optimizers) != 0 && participant->refusal.empty())
        participant->refusal =
            refusals::changed("a gradient was changed by " + op.name + " between backward() and step()");
  }

  void forget_gradients_of(uint64_t bit) {
    for (auto gradient = gradients_.begin(); gradient != gradients_.end();) {
      gradient->second.optimizers &= ~bit;
      const bool keep = gradient->second.optimizers != 0 && gradient->second.storage.use_count() > 0;
      gradient = keep ? std::next(gradient) : gradients_.erase(gradient);
    }
  }

 private:
  struct Gradient {
    WeakStorage storage = no_storage();
    uint64_t optimizers = 0;
  };

  std::vector<Participant*> participants_;
  std::unordered_map<const c10::TensorImpl*, Source> sources_;
  std::unordered_map<const c10::StorageImpl*, const c10::TensorImpl*> memory_;
  std::unordered_map<const c10::StorageImpl*, Gradient> gradients_;
};

}  // namespace step
STEPPE_NAMESPACE_END
