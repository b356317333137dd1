// Which tensors depend on the parameters that are trained, and which operator made each of them.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>
#include <c10/core/GradMode.h>
#include <c10/core/StorageImpl.h>
#include <torch/csrc/autograd/function.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <steppe/step/record.hpp>
#include <steppe/step/sources.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace step {

/// A tensor that is alive keeps the record of what made it, a record those of its inputs; what nothing alive depends on
/// is released. Tensors are identified by identity, and by their memory where they share it (views, data(), writes in
/// place).
class ValueGraph {
 public:
  /// A tensor that a recorded operator made.
  struct Value {
    WeakTensor tensor = weak(at::Tensor());
    std::shared_ptr<Record> record;
    uint32_t output = 0;
  };

  explicit ValueGraph(Sources& sources) : sources_(sources) {}

  uint64_t next_number() { return ++count_; }
  uint64_t last_number() const { return count_; }

  /// The optimizers on whose parameters or buffers a tensor depends.
  uint64_t dependence_of(const at::Tensor& tensor) const {
    if (!tensor.defined()) return 0;
    uint64_t optimizers = 0;
    if (const Source* source = sources_.of(tensor)) optimizers |= source->optimizers;
    if (const Value* value = value_of(tensor)) optimizers |= value->record->optimizers;
    const c10::StorageImpl* storage = memory_of(tensor);
    if (storage == nullptr) return optimizers;
    const auto memory = memories_.find(storage);
    if (memory != memories_.end()) {
      if (memory->second.maker) optimizers |= memory->second.maker->optimizers;
      if (memory->second.writer) optimizers |= memory->second.writer->optimizers;
    }
    if (const Source* shared = sources_.in(storage)) optimizers |= shared->optimizers;
    return optimizers;
  }

  /// Null if no recorded operator made it.
  const Value* value_of(const at::Tensor& tensor) const {
    const auto found = tensor.defined() ? values_.find(tensor.unsafeGetTensorImpl()) : values_.end();
    return found == values_.end() ? nullptr : &found->second;
  }

  /// Handles a tensor that is written to. False: the operator belongs to no forward pass.
  bool is_writable(const Operator& op, const at::Tensor& tensor, bool differentiable, Record& record) {
    if (!tensor.defined()) return true;
    const c10::StorageImpl* storage = memory_of(tensor);
    const Source* shared = sources_.in(storage);
    if (shared != nullptr && shared->is_buffer) {
      sources_.save_buffer(shared->tensor);
      return true;
    }
    if (shared != nullptr || sources_.of(tensor) != nullptr) {
      if (op.renormalizes_weights) return true;
      sources_.note_change(storage);
      return false;
    }
    if (values_.count(tensor.unsafeGetTensorImpl()) != 0 || memories_.count(storage) != 0) return true;
    sources_.note_write(op, storage);
    const at::Tensor base = tensor.is_view() ? at::Tensor(tensor._base()) : tensor;
    const bool is_new = is_of_this_step(storage, record.optimizers) && base.is_non_overlapping_and_dense();
    if (is_new)
      take_over(base, record);
    else if (differentiable)
      record.refusal = op.name + " wrote a value that depends on the weights into a tensor of shape " +
                       shape_of(tensor) +
                       " from before the step, which would be written once more; make that tensor within the step, "
                       "make it a buffer of the attached module, or write to a copy";
    else
      note_write(storage);
    return is_new || differentiable;
  }

  /// A tensor as an input of `record`.
  Input take(const at::Tensor& tensor, Record& record) {
    Input input;
    input.tensor = tensor;
    if (!tensor.defined()) return input;
    const Source* source = sources_.of(tensor);
    const c10::StorageImpl* storage = memory_of(tensor);
    const auto memory = memories_.find(storage);
    if (source != nullptr) {
      input.kind = source->is_buffer ? Input::Kind::Buffer : Input::Kind::Parameter;
      input.version = source->changes;
      if (memory != memories_.end()) input.writer = memory->second.writer;
      return input;
    }
    auto value = values_.find(tensor.unsafeGetTensorImpl());
    if (value == values_.end() && memory != memories_.end() && memory->second.maker) {
      name_view(tensor, memory->second, record);
      value = values_.find(tensor.unsafeGetTensorImpl());
    }
    input.version = version(tensor);
    if (value != values_.end()) return take_value(std::move(input), value->second, record);
    if (sources_.is_parameter_memory(storage))
      refuse(record, tensor,
             "that shares memory with a parameter but is not it (made by data() or from_blob()?); use the "
             "parameter itself or its detach()");
    else if (is_from_gradient(storage, record.optimizers))
      refuse(record, tensor, "that was computed from a gradient of this pass; use step(closure)");
    else if (tensor.requires_grad() && !tensor.is_leaf() && others_.count(tensor.unsafeGetTensorImpl()) == 0)
      refuse(record, tensor, made_by(tensor));
    return take_constant(std::move(input));
  }

  /// The number of changes in place of a tensor, including those that bypass its version (data(), as LibTorch's
  /// optimizers do).
  int64_t version(const at::Tensor& tensor) const {
    const auto found = constants_.find(memory_of(tensor));
    return version_of(tensor) + (found == constants_.end() ? 0 : found->second.writes);
  }

  /// An operator wrote to memory that depends on no parameter.
  void note_write(const c10::StorageImpl* storage) {
    const auto found = constants_.find(storage);
    if (found != constants_.end()) ++found->second.writes;
  }

  /// A value of parameters that are trained by others: a constant here, although it has a gradient.
  void note_other(const at::Tensor& tensor) { others_.insert_or_assign(tensor.unsafeGetTensorImpl(), weak(tensor)); }

  /// The same for a value.
  Input take_value(Input input, const Value& value, Record& record) {
    const at::Tensor tensor = input.tensor;
    input.kind = Input::Kind::Value;
    input.from = value.record;
    input.output = value.output;
    const auto memory = memories_.find(memory_of(tensor));
    const std::shared_ptr<Record> writer = memory == memories_.end() ? nullptr : memory->second.writer;
    if (writer && writer != value.record && writer->number > value.record->number) input.writer = writer;
    if (tensor.requires_grad() && !tensor.is_leaf() && !value.record->outputs[value.output].requires_grad &&
        !input.writer)
      refuse(record, tensor, made_by(tensor));
    if (value.record->past == 0) input.tensor = at::Tensor();
    return input;
  }

  /// The value that a function of the graph made.
  const Value* find(uint64_t sequence, uint64_t thread, uint32_t output) const {
    const auto matches = [&](const Value& value) {
      const at::Tensor tensor = locked(value.tensor);
      if (!tensor.defined() || !tensor.requires_grad() || tensor.is_leaf()) return false;
      const auto& function = tensor.grad_fn();
      return function->sequence_nr() == sequence && function->thread_id() == thread && tensor.output_nr() == output;
    };
    for (const c10::TensorImpl* tensor : recent_) {
      const auto value = values_.find(tensor);
      if (value != values_.end() && matches(value->second)) return &value->second;
    }
    for (const auto& value : values_)
      if (matches(value.second)) return &value.second;
    return nullptr;
  }

  /// Adds the outputs of an operator that has run.
  void add(const std::shared_ptr<Record>& record, const std::vector<c10::IValue>& outputs) {
    for_each_tensor(outputs, [&](size_t, int32_t, const at::Tensor& tensor) {
      const auto number = static_cast<uint32_t>(record->outputs.size());
      record->outputs.push_back({tensor.defined() ? weak(tensor) : weak(at::Tensor()), false});
      if (!tensor.defined()) return;
      record->outputs.back().requires_grad = tensor.requires_grad();
      note_output(tensor, record, number);
    });
    for (Input& input : record->inputs)
      if (input.written) note_writer(input, record);
    sweep_at_times();
  }

  /// Notes memory made by an operator that depends on no parameter, but on a gradient with a number if that is not 0.
  void bear(const at::Tensor& tensor, uint64_t gradient) {
    Birth& birth = births_[memory_of(tensor)];
    if (birth.number == 0) birth.number = next_number();
    birth.storage = tensor.storage().getWeakStorageImpl();
    birth.gradient = (std::max)(birth.gradient, gradient);
    sweep_at_times();
  }

  /// Whether memory was made since the last step of each of these optimizers.
  bool is_of_this_step(const c10::StorageImpl* storage, uint64_t optimizers) const {
    const auto birth = births_.find(storage);
    return birth != births_.end() && birth->second.number > sources_.last_step_of(optimizers);
  }

  /// The number of the gradient that memory was computed from, or 0.
  uint64_t gradient_of(const c10::StorageImpl* storage) const {
    const auto birth = births_.find(storage);
    return birth == births_.end() ? 0 : birth->second.gradient;
  }

  /// Whether a forward pass of an optimizer's parameters is in progress: a value with a gradient is alive.
  bool is_under_way(uint64_t bit) const {
    for (const auto& value : values_)
      if ((value.second.record->optimizers & bit) != 0 && value.second.tensor.use_count() > 0 &&
          value.second.record->outputs[value.second.output].requires_grad)
        return true;
    return false;
  }

  /// Makes what has been recorded past to an optimizer: its values are constants from now on. What no other optimizer
  /// needs is released.
  void forget_past_of(uint64_t bit) {
    std::vector<std::shared_ptr<Record>> dropped;
    std::vector<Record*> rest;
    const auto reach = [&](const std::shared_ptr<Record>& record) {
      if (record && (record->optimizers & bit) != 0) {
        record->optimizers &= ~bit;
        record->past |= bit;
        rest.push_back(record.get());
      }
    };
    for (auto& value : values_) reach(value.second.record);
    for (auto& memory : memories_) {
      reach(memory.second.maker);
      reach(memory.second.writer);
    }
    while (!rest.empty()) {
      Record* record = rest.back();
      rest.pop_back();
      for (const Input& input : record->inputs) {
        reach(input.from);
        reach(input.writer);
      }
    }
    const auto matters = [](const std::shared_ptr<Record>& record) { return record && record->optimizers != 0; };
    for (auto value = values_.begin(); value != values_.end();) {
      const bool keep = matters(value->second.record);
      if (!keep) dropped.push_back(std::move(value->second.record));
      value = keep ? std::next(value) : values_.erase(value);
    }
    for (auto memory = memories_.begin(); memory != memories_.end();) {
      const bool keep = matters(memory->second.maker) || (!memory->second.maker && matters(memory->second.writer));
      if (!keep) dropped.push_back(std::move(memory->second.maker));
      if (!keep) dropped.push_back(std::move(memory->second.writer));
      memory = keep ? std::next(memory) : memories_.erase(memory);
    }
    sweep();
  }

 private:
  struct Memory {
    WeakStorage storage = no_storage();
    std::shared_ptr<Record> maker;
    uint32_t output = 0;
    std::shared_ptr<Record> writer;
  };
  struct Birth {
    WeakStorage storage = no_storage();
    uint64_t number = 0;
    uint64_t gradient = 0;
  };
  struct Constant {
    WeakStorage storage = no_storage();
    int64_t writes = 0;
  };

  /// Drops its graph and gradient, which a constant does not need.
  Input take_constant(Input input) {
    if (memory_of(input.tensor) != nullptr) {
      if (input.tensor.nbytes() >= kLarge && constants_.count(memory_of(input.tensor)) == 0) sweep();
      Constant& constant = constants_[memory_of(input.tensor)];
      if (constant.storage.use_count() == 0) constant.storage = input.tensor.storage().getWeakStorageImpl();
    }
    input.version = version(input.tensor);
    if (input.tensor.requires_grad()) input.tensor = input.tensor.detach();
    return input;
  }

  void note_output(const at::Tensor& tensor, const std::shared_ptr<Record>& record, uint32_t number) {
    if (sources_.of(tensor) != nullptr) return;
    for (const Input& input : record->inputs)  // a view of data, which is no value of the weights
      if (input.kind == Input::Kind::Constant && !input.written && memory_of(input.tensor) != nullptr &&
          memory_of(input.tensor) == memory_of(tensor))
        return;
    Value& value = values_[tensor.unsafeGetTensorImpl()];
    value = {weak(tensor), record, number};
    recent_[recent_count_++ % recent_.size()] = tensor.unsafeGetTensorImpl();
    const c10::StorageImpl* storage = memory_of(tensor);
    if (storage == nullptr) return;
    for (Input& input : record->inputs) {
      if (input.kind == Input::Kind::Value)
        input.aliased = input.aliased || memory_of(locked(input.from->outputs[input.output].tensor)) == storage;
      else
        input.aliased = input.aliased || memory_of(input.tensor) == storage;
    }
    if (sources_.in(storage) != nullptr) return;
    Memory& memory = memories_[storage];
    if (!memory.maker) memory = {tensor.storage().getWeakStorageImpl(), record, number, nullptr};
  }

  void note_writer(const Input& input, const std::shared_ptr<Record>& record) {
    const at::Tensor tensor =
        input.kind == Input::Kind::Value ? locked(input.from->outputs[input.output].tensor) : input.tensor;
    const c10::StorageImpl* storage = memory_of(tensor);
    if (storage == nullptr) return;
    Memory& memory = memories_[storage];
    if (!memory.maker && !memory.writer) memory.storage = tensor.storage().getWeakStorageImpl();
    memory.writer = record;
  }

  /// A tensor that was made in this step from data alone, and is about to be filled: a copy of its content is kept, and
  /// replaces it when the operators are called again.
  void take_over(const at::Tensor& base, const Record& before) {
    static const Operator clone(c10::Dispatcher::singleton().findSchemaOrThrow("aten::clone", ""));
    auto record = std::make_shared<Record>();
    record->number = ++count_;
    record->op = &clone;
    record->optimizers = before.optimizers;
    record->grad_mode = before.grad_mode;
    record->arguments = {c10::IValue(), c10::IValue()};
    Input content;
    {
      const c10::NoGradGuard no_grad;
      content.tensor = base.detach().clone();
    }
    content.version = version_of(content.tensor);
    record->inputs.push_back(std::move(content));
    record->outputs.push_back({weak(base), false});
    values_[base.unsafeGetTensorImpl()] = {weak(base), record, 0};
    memories_[memory_of(base)] = {base.storage().getWeakStorageImpl(), record, 0, nullptr};
  }

  /// A view that no recorded operator made, of memory that one did: data(), or a slice taken before the first value
  /// that depends on the weights was written.
  void name_view(const at::Tensor& tensor, const Memory& memory, const Record& before) {
    static const Operator detach(c10::Dispatcher::singleton().findSchemaOrThrow("aten::detach", ""));
    static const Operator as_strided(c10::Dispatcher::singleton().findSchemaOrThrow("aten::as_strided", ""));
    std::shared_ptr<Record> from = memory.maker;
    uint32_t output = memory.output;
    const at::Tensor base = locked(from->outputs[output].tensor);
    const auto make = [&](const Operator& op, std::vector<c10::IValue> arguments) {
      auto record = std::make_shared<Record>();
      record->number = ++count_;
      record->op = &op;
      record->optimizers = before.optimizers;
      record->grad_mode = before.grad_mode;
      record->arguments = std::move(arguments);
      Input input;
      input.kind = Input::Kind::Value;
      input.from = from;
      input.output = output;
      if (memory.writer != from) input.writer = memory.writer;
      input.version = base.defined() ? version_of(base) : -1;
      input.aliased = true;
      record->inputs.push_back(std::move(input));
      record->outputs.push_back({weak(tensor), tensor.requires_grad()});
      from = record;
      output = 0;
    };
    if (!tensor.requires_grad() && from->outputs[output].requires_grad) make(detach, {c10::IValue()});
    make(as_strided, {c10::IValue(), c10::IValue(tensor.sizes().vec()), c10::IValue(tensor.strides().vec()),
                      c10::IValue(tensor.storage_offset())});
    if (base.defined() && base.scalar_type() != tensor.scalar_type())
      from->refusal = "a tensor of dtype " + std::string(c10::toString(tensor.scalar_type())) +
                      " shares memory with one of another dtype; use step(closure)";
    values_[tensor.unsafeGetTensorImpl()] = {weak(tensor), from, 0};
  }

  static std::string shape_of(const at::Tensor& tensor) {
    std::string text = "[";
    for (const int64_t size : tensor.sizes()) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
    return text + "]";
  }

  static std::string made_by(const at::Tensor& tensor) {
    return "with a gradient made by " + tensor.grad_fn()->name() +
           ", which is not a recorded operator: a torch::autograd::Function, a backward pass with create_graph, a "
           "compiled graph, another thread, or from before the optimizer was made; use step(closure)";
  }

  static void refuse(Record& record, const at::Tensor& tensor, const std::string& why) {
    if (record.refusal.empty())
      record.refusal = record.op->name + " was given a tensor of shape " + shape_of(tensor) + " " + why;
  }

  bool is_from_gradient(const c10::StorageImpl* storage, uint64_t optimizers) const {
    return sources_.is_gradient_memory(storage) || gradient_of(storage) > sources_.last_step_of(optimizers);
  }

  void sweep_at_times() {
    if (++since_sweep_ > 64 + (values_.size() + births_.size() + others_.size()) / 2) sweep();
  }

  void sweep() {
    since_sweep_ = 0;
    std::vector<std::shared_ptr<Record>> dropped;  // released after the maps are consistent again
    for (auto value = values_.begin(); value != values_.end();) {
      const bool gone = value->second.tensor.use_count() == 0;
      if (gone) dropped.push_back(std::move(value->second.record));
      value = gone ? values_.erase(value) : std::next(value);
    }
    for (auto memory = memories_.begin(); memory != memories_.end();) {
      const bool gone = memory->second.storage.use_count() == 0;
      if (gone) dropped.push_back(std::move(memory->second.maker));
      if (gone) dropped.push_back(std::move(memory->second.writer));
      memory = gone ? memories_.erase(memory) : std::next(memory);
    }
    for (auto other = others_.begin(); other != others_.end();)
      other = other->second.use_count() == 0 ? others_.erase(other) : std::next(other);
    for (auto constant = constants_.begin(); constant != constants_.end();)
      constant = constant->second.storage.use_count() == 0 ? constants_.erase(constant) : std::next(constant);
    for (auto birth = births_.begin(); birth != births_.end();)
      birth = birth->second.storage.use_count() == 0 ? births_.erase(birth) : std::next(birth);
  }

  /// Size in bytes from which on a new constant releases those of earlier passes at once.
  static constexpr size_t kLarge = 1 << 16;

  Sources& sources_;
  std::unordered_map<const c10::TensorImpl*, Value> values_;
  std::unordered_map<const c10::StorageImpl*, Memory> memories_;
  std::unordered_map<const c10::StorageImpl*, Birth> births_;
  std::unordered_map<const c10::StorageImpl*, Constant> constants_;
  std::unordered_map<const c10::TensorImpl*, WeakTensor> others_;
  std::array<const c10::TensorImpl*, 16> recent_ = {};
  size_t recent_count_ = 0, since_sweep_ = 0;
  uint64_t count_ = 0;
};

}  // namespace step
STEPPE_NAMESPACE_END
