// An operator as it was called in a forward pass, kept so that it can be called again.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>
#include <c10/core/StorageImpl.h>
#include <c10/core/TensorImpl.h>
#include <c10/core/UndefinedTensorImpl.h>
#include <c10/util/intrusive_ptr.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <steppe/step/autocast_state.hpp>
#include <steppe/step/draw_observer.hpp>
#include <steppe/step/drawn_numbers.hpp>
#include <steppe/step/observed.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace step {

/// A tensor known by its identity: while this lives no other tensor gets its address, but its memory is released.
using WeakTensor = c10::weak_intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>;

inline WeakTensor weak(const at::Tensor& tensor) { return WeakTensor(tensor.getIntrusivePtr()); }

/// The tensor; undefined if it no longer exists.
inline at::Tensor locked(const WeakTensor& tensor) {
  auto found = tensor.lock();
  return found ? at::Tensor(std::move(found)) : at::Tensor();
}

using WeakStorage = c10::weak_intrusive_ptr<c10::StorageImpl>;
inline WeakStorage no_storage() { return WeakStorage(c10::intrusive_ptr<c10::StorageImpl>()); }

/// The number of changes in place, as far as LibTorch counts them.
inline int64_t version_of(const at::Tensor& tensor) {
  return tensor.defined() && !tensor.is_inference() ? int64_t{tensor._version()} : 0;
}

/// The storage of a tensor's elements; null if it has none of its own (sparse tensors).
inline const c10::StorageImpl* memory_of(const at::Tensor& tensor) {
  return tensor.defined() && tensor.unsafeGetTensorImpl()->has_storage() ? tensor.storage().unsafeGetStorageImpl()
                                                                         : nullptr;
}

/// Calls visit(argument, element, tensor) for every tensor among boxed arguments; `element` is -1 outside of lists.
template <class Values, class Visitor>
void for_each_tensor(const Values& values, Visitor&& visit) {
  for (size_t i = 0; i < values.size(); ++i) {
    const c10::IValue& value = values[i];
    if (value.isTensor()) {
      visit(i, -1, value.toTensor());
    } else if (value.isList() && !value.isIntList() && !value.isDoubleList() && !value.isBoolList()) {
      const auto elements = value.toListRef();
      for (size_t k = 0; k < elements.size(); ++k)
        if (elements[k].isTensor()) visit(i, static_cast<int32_t>(k), elements[k].toTensor());
    }
  }
}

/// An operator of the dispatcher.
struct Operator {
  c10::OperatorHandle handle;
  std::string name;                ///< with its overload
  std::vector<bool> writes;        ///< of each argument, whether it is written to
  std::vector<bool> is_statistic;  ///< of each argument, whether it is a normalization's running statistic
  int64_t training = -1;           ///< which argument decides whether those are written to instead of read
  bool writes_any = false;
  bool makes_ones = false, detaches = false;
  bool may_draw = false;              ///< random numbers, itself or by operators within it
  mutable int nested = 0;             ///< operators within one call, as far as observed
  bool renormalizes_weights = false;  ///< embeddings with a max_norm do, as a part of the forward pass

  explicit Operator(const c10::OperatorHandle& found)
      : handle(found),
        name(found.operator_name().overload_name.empty()
                 ? found.operator_name().name
                 : found.operator_name().name + "." + found.operator_name().overload_name) {
    const auto says_dropout = [](const std::string& text) { return text.find("dropout") != std::string::npos; };
    may_draw = draws_of(found) != Draws::Nothing || says_dropout(name) || name.compare(0, 6, "aten::") != 0;
    for (const c10::Argument& argument : found.schema().arguments()) {
      const c10::AliasInfo* alias = argument.alias_info();
      bool written = alias != nullptr && alias->isWrite();
      if (alias != nullptr)
        for (const c10::AliasInfo& element : alias->containedTypes()) written = written || element.isWrite();
      writes.push_back(written);
      writes_any = writes_any || written;
      may_draw = may_draw || says_dropout(argument.name());
      is_statistic.push_back(names_a_statistic(argument.name()));
      if (names_the_training_flag(argument.name())) training = static_cast<int64_t>(writes.size()) - 1;
    }
    makes_ones = found.operator_name().name == "aten::ones_like";
    detaches = found.operator_name().name == "aten::detach";
    renormalizes_weights = found.operator_name().name == "aten::embedding_renorm_";
  }
};

struct Record;

/// An input tensor of an operator.
struct Input {
  enum class Kind : uint8_t {
    Constant,   ///< from outside of what is recorded: data, targets, masks
    Parameter,  ///< of an optimizer; itself, whatever its values are
    Buffer,     ///< of an attached module; itself as well
    Value,      ///< made by another recorded operator
  };

  Kind kind = Kind::Constant;
  bool written = false;  ///< by this operator
  bool aliased = false;  ///< shares memory with an output of this operator
  bool is_statistic = false;
  uint32_t argument = 0;
  int32_t element = -1;            ///< within a list, else -1
  uint32_t output = 0;             ///< of `from`
  int64_t version = 0;             ///< when it was read; of a parameter the number of observed changes
  at::Tensor tensor;               ///< of all but a Value; also of a Value if a step has been made since it was
  std::shared_ptr<Record> from;    ///< what made a Value
  std::shared_ptr<Record> writer;  ///< what wrote to its memory last, if that is not `from`
};

/// One call. Tensors that recorded operators made are not kept; constants are.
struct Record {
  struct Output {
    WeakTensor tensor;
    bool requires_grad = false;
  };

  uint64_t number = 0;  ///< in the order of calls
  const Operator* op = nullptr;
  std::vector<c10::IValue> arguments;  ///< with holes where the inputs go
  std::vector<Input> inputs;
  std::vector<Output> outputs;
  std::shared_ptr<const DrawnNumbers> drew;  ///< null if nothing was drawn
  uint64_t optimizers = 0;                   ///< a bit for each whose parameters or buffers it depends on
  uint64_t past = 0;                         ///< of these, the ones that have made a step since
  uint64_t unplaced = 0;   ///< of these, the ones whose first iteration it may belong to, or may precede
  bool of_params = false;  ///< it depends on a parameter
  bool of_data = false;    ///< and on something that depends on none
  bool grad_mode = true;
  AutocastState autocast;
  std::string refusal;  ///< why it cannot be called again, if it cannot

  Record() = default;
  Record(const Record&) = delete;
  Record& operator=(const Record&) = delete;

  /// Releases long chains one by one, not by recursion.
  ~Record() {
    std::vector<std::shared_ptr<Record>> rest;
    take_inputs(rest);
    while (!rest.empty()) {
      const std::shared_ptr<Record> last = std::move(rest.back());
      rest.pop_back();
      if (last.use_count() == 1) last->take_inputs(rest);
    }
  }

 private:
  void take_inputs(std::vector<std::shared_ptr<Record>>& out) {
    for (Input& input : inputs) {
      if (input.from) out.push_back(std::move(input.from));
      if (input.writer) out.push_back(std::move(input.writer));
    }
    inputs.clear();
  }
};

}  // namespace step
STEPPE_NAMESPACE_END
