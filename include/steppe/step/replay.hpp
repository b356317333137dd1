// The forward and backward passes of a recording, made once more.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <ATen/record_function.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include <steppe/step/buffers_guard.hpp>
#include <steppe/step/drawn_numbers.hpp>
#include <steppe/step/gradient_comparison.hpp>
#include <steppe/step/observed.hpp>
#include <steppe/step/operator_observer.hpp>
#include <steppe/step/programs_gradients.hpp>
#include <steppe/step/recording.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace step {

/// What led to the gradients of one optimizer, ready to be repeated with the weights as they are then: the same
/// operators in the same order with the same random numbers, constants and autocast; each backward() where it was.
///
/// Only what depends on the optimizer's parameters is repeated; only they get gradients. Values are released after
/// their last use. Errors, before anything has changed: what cannot be repeated, with the reason.
class Replay {
 public:
  Replay(const Recording& recording, const Participant& participant)
      : recording_(&recording), participant_(&participant) {
    const std::lock_guard<std::mutex> lock(recording.mutex());
    check_gradients();
    for_each_root([&](const Root& root) {
      need(root.from, false);
      need_input(root.gradient, "backward()", false);
    });
    while (!open_.empty()) {
      const std::shared_ptr<Record> record = std::move(open_.back());
      open_.pop_back();
      const bool own = needed_.at(record.get()).own;
      for (const Input& input : record->inputs)
        need_input(input, record->op->name, input.written || (own && input.aliased), &recording);
    }
    arrange();
  }

  /// The loss of the first pass, if backward() was called on single elements.
  const at::Tensor& loss() const { return loss_; }

  /// The loss of passes that are not repeated.
  static at::Tensor loss_of(const Participant& participant) {
    Loss loss;
    for (const BackwardCall& backward : participant.backwards)
      for (const Root& root : backward.roots) loss.add(root, root.loss);
    return loss.sum();
  }

  /// Identifies the sequence of operators and their connections, whatever their shapes.
  uint64_t signature() const { return signature_; }

  /// Makes the passes once; gradients are added where backward() would add them. Returns the loss, if it has one
  /// element. `same_numbers`: operators draw the random numbers that they drew before, else new ones. Statistics of
  /// normalization layers that the optimizer does not know are restored.
  at::Tensor run(bool same_numbers) const {
    const Pause pause;
    const Recording::Replaying replaying(*recording_);
    const BuffersGuard others(others_written_);
    AutocastScope autocast;
    std::vector<std::vector<at::Tensor>> values(calls_.size());
    std::vector<std::vector<uint32_t>> uses(calls_.size());
    for (size_t i = 0; i < calls_.size(); ++i) uses[i] = calls_[i].uses;
    Loss loss;
    for (size_t i = 0; i < calls_.size(); ++i) {
      const Call& call = calls_[i];
      autocast.set(call.record ? call.record->autocast : outside_);
      std::vector<at::Tensor> given;
      for (const Source& source : call.inputs)
        given.push_back(source.call < 0 ? source.tensor : values[static_cast<size_t>(source.call)][source.output]);
      if (call.record)
        values[i] = execute(*call.record, std::move(given), uses[i], same_numbers);
      else
        go_back(*call.backward, std::move(given), loss);
      for (const Source& source : call.inputs)
        if (source.call >= 0 && --uses[static_cast<size_t>(source.call)][source.output] == 0)
          values[static_cast<size_t>(source.call)][source.output] = at::Tensor();
    }
    return loss.sum();
  }

  /// Makes the passes at the current weights, and throws unless they give the current gradients. Gradients, buffers and
  /// generators are left as they were.
  void verify() const {
    const BuffersGuard guard(participant_->buffers);
    const std::vector<at::Tensor> seen = gradients_of_run();
    std::optional<std::vector<at::Tensor>> once_more;
    for (size_t i = 0; i < seen.size(); ++i) {
      const at::Tensor& param = participant_->params[i];
      if (comparison::equal(seen[i], param.grad())) continue;
      // Where the backward pass itself is not deterministic, rounding is allowed for.
      if (!once_more) once_more = gradients_of_run();
      const bool varies = param.is_cuda() || !comparison::equal(seen[i], (*once_more)[i]);
      TORCH_CHECK(varies && comparison::close(seen[i], param.grad()),
                  "steppe: step() cannot repeat this loop: repeated at the same weights, its ", calls_.size(),
                  " calls give the parameter ", i, " of shape ", param.sizes(),
                  " another gradient than backward() left, by up to ", comparison::difference(seen[i], param.grad()),
                  ". Likely causes: gradients that were changed between backward() and step() (use clip_grad_norm(), "
                  "clip_grad_value() or before_descent() of the optimizer instead), a value that was written "
                  "through a pointer, or an operator whose result differs each time; or use step(closure)");
    }
  }

 private:
  /// Where a tensor comes from: another call, or it is known already.
  struct Source {
    int64_t call = -1;
    uint32_t output = 0;
    at::Tensor tensor;
  };
  /// An operator, or a backward() if there is no record.
  struct Call {
    uint64_t number = 0;
    std::shared_ptr<Record> record;
    const BackwardCall* backward = nullptr;
    std::vector<Source> inputs;
    std::vector<uint32_t> uses;  ///< of each output
  };
  struct Need {
    bool own = false;  ///< its result is written to, so that it must not share memory with what the program holds
  };

  static constexpr const char* kClosure = "; or use step(closure)";

  template <class Visitor>
  void for_each_root(Visitor&& visit) const {
    for (const BackwardCall& backward : participant_->backwards)
      for (const Root& root : backward.roots) visit(root);
  }

  void check_gradients() const {
    const Participant& own = *participant_;
    bool any = false, as_left = true;
    for (size_t i = 0; i < own.params.size(); ++i) {
      any = any || (own.backwards.empty() ? !is_clear(own.params[i].grad()) : own.params[i].grad().defined());
      as_left = as_left && own.notes[i] == GradientNote::of(own.params[i]);
    }
    TORCH_CHECK(any, "steppe: step() found no gradient: call backward() before it, as for any optimizer", kClosure);
    TORCH_CHECK(own.refusal.empty(), "steppe: step() cannot repeat this loop: ", own.refusal.why, ". ",
                own.refusal.cure, kClosure);
    TORCH_CHECK(!own.backwards.empty() || !own.has_stepped || !as_left,
                "steppe: step() was called again without a backward() since the last step; call it once for each",
                kClosure);
    TORCH_CHECK(
        !own.backwards.empty(),
        "steppe: step() cannot repeat this loop: its forward pass was not recorded. It ran on another thread than "
        "the one that the optimizer was made on (call replay(true) on the thread that trains), or before that",
        kClosure);
    const Refusal changed = refusals::changed("gradients were changed between backward() and step()");
    TORCH_CHECK(as_left, "steppe: step() cannot repeat this loop: ", changed.why, ". ", changed.cure, kClosure);
  }

  void need(const std::shared_ptr<Record>& record, bool own) {
    TORCH_CHECK(record->refusal.empty(), "steppe: step() cannot repeat the forward pass: ", record->refusal);
    TORCH_CHECK(
        (record->unplaced & participant_->bit) == 0, "steppe: step() cannot tell whether a value that ",
        record->op->name,
        " made of the weights without a gradient belongs to the first iteration or comes from before the loop (a "
        "copy, a teacher); call zero_grad() of the optimizer (by its own type: torch::optim::Optimizer's is not "
        "seen) where the iteration begins, or replay(true) before the loop");
    const auto [found, is_new] = needed_.emplace(record.get(), Need{own});
    if (!is_new && (found->second.own || !own)) return;
    found->second.own = own;
    open_.push_back(record);
  }

  void need_input(const Input& input, const std::string& by, bool own, const Recording* recording = nullptr) {
    switch (input.kind) {
      case Input::Kind::Constant:
        TORCH_CHECK(!own, "steppe: step() cannot repeat the forward pass: ", by,
                    " wrote to memory of a tensor of shape ", input.tensor.sizes(),
                    " that is the program's own; write to a clone()", kClosure);
        return check_constant(input, by);
      case Input::Kind::Parameter:
        TORCH_CHECK(recording == nullptr || recording->changes_of(input.tensor) == input.version,
                    "steppe: step() cannot repeat the forward pass: a parameter of shape ", input.tensor.sizes(),
                    " has changed since ", by,
                    " used it: another optimizer has made its step in between. Give one optimizer all parameters, in "
                    "groups",
                    kClosure);
        break;
      case Input::Kind::Buffer:
        break;
      case Input::Kind::Value:
        if ((input.from->past & participant_->bit) != 0 && (input.from->optimizers & participant_->bit) == 0) {
          TORCH_CHECK(
              input.tensor.defined() && !own && input.from->number <= participant_->since,
              "steppe: step() cannot repeat the forward pass: ", by, " was given a value of ", input.from->op->name,
              " from before the last step, which no longer exists, or from more than 64 steps of other optimizers ago",
              kClosure);
          return check_constant(input, by);
        }
        if ((input.from->optimizers & participant_->bit) == 0 && !own && known_value(input).defined()) return;
        need(input.from, own);
        break;
    }
    if (input.writer) need(input.writer, false);
  }

  bool is_own(const at::Tensor& buffer) const {
    const std::vector<at::Tensor>& own = participant_->buffers;
    return std::any_of(own.begin(), own.end(), [&](const at::Tensor& each) { return each.is_same(buffer); });
  }

  void check_constant(const Input& input, const std::string& by) const {
    TORCH_CHECK(input.is_statistic || recording_->version(input.tensor) == input.version,
                "steppe: step() cannot repeat the forward pass: a tensor of shape ",
                input.tensor.defined() ? input.tensor.sizes() : at::IntArrayRef(), " that ", by,
                " was given has been written to since, by the program or by another optimizer's step; write to it "
                "after step(), or "
                "give the operator a clone()",
                kClosure);
  }

  /// A value that does not depend on this optimizer and still exists unchanged; needs no call.
  at::Tensor known_value(const Input& input) const {
    const at::Tensor tensor = input.tensor.defined() ? input.tensor : locked(input.from->outputs[input.output].tensor);
    return tensor.defined() && recording_->version(tensor) == input.version ? tensor : at::Tensor();
  }

  /// Arranges the calls in their order, each with the sources of its inputs.
  void arrange() {
    std::vector<std::shared_ptr<Record>> records;
    for_each_root([&](const Root& root) {
      collect(root.from, records);
      collect_input(root.gradient, records);
    });
    for (auto& record : records) {
      Call& call = calls_.emplace_back();
      call.number = record->number;
      call.record = std::move(record);
    }
    for (const BackwardCall& backward : participant_->backwards) {
      Call& call = calls_.emplace_back();
      call.number = backward.number;
      call.backward = &backward;
    }
    std::sort(calls_.begin(), calls_.end(), [](const Call& a, const Call& b) { return a.number < b.number; });
    std::unordered_map<const Record*, int64_t> place;
    for (size_t i = 0; i < calls_.size(); ++i)
      if (calls_[i].record) {
        place[calls_[i].record.get()] = static_cast<int64_t>(i);
        calls_[i].uses.resize(calls_[i].record->outputs.size());
      }
    for (Call& call : calls_) {
      if (call.backward != nullptr) {
        for (const Root& root : call.backward->roots) {
          call.inputs.push_back({place.at(root.from.get()), root.output, {}});
          call.inputs.push_back(source_of(root.gradient, false, place));
        }
      } else {
        const bool own = needed_.at(call.record.get()).own;
        for (const Input& input : call.record->inputs) {
          call.inputs.push_back(source_of(input, input.written || (own && input.aliased), place));
          if ((input.is_statistic && input.kind == Input::Kind::Constant && input.tensor.defined()) ||
              (input.kind == Input::Kind::Buffer && !is_own(input.tensor)))
            others_written_.push_back(input.tensor);
        }
      }
      for (const Source& source : call.inputs)
        if (source.call >= 0) ++calls_[static_cast<size_t>(source.call)].uses[source.output];
    }
    loss_ = loss_of(*participant_);
    sign();
    needed_.clear();
    collected_.clear();
  }

  void collect(const std::shared_ptr<Record>& first, std::vector<std::shared_ptr<Record>>& records) {
    std::vector<std::shared_ptr<Record>> rest = {first};
    while (!rest.empty()) {
      const std::shared_ptr<Record> record = std::move(rest.back());
      rest.pop_back();
      const auto found = needed_.find(record.get());
      if (found == needed_.end() || !collected_.insert(record.get()).second) continue;
      records.push_back(record);
      for (const Input& input : record->inputs) {
        if (input.from) rest.push_back(input.from);
        if (input.writer) rest.push_back(input.writer);
      }
    }
  }
  void collect_input(const Input& input, std::vector<std::shared_ptr<Record>>& records) {
    if (input.from) collect(input.from, records);
    if (input.writer) collect(input.writer, records);
  }

  Source source_of(const Input& input, bool own, const std::unordered_map<const Record*, int64_t>& place) const {
    if (input.kind != Input::Kind::Value) return {-1, 0, input.tensor};
    const bool depends = (input.from->optimizers & participant_->bit) != 0;
    if (!depends && (input.from->past & participant_->bit) != 0) return {-1, 0, input.tensor};
    if (!depends && !own) {
      const at::Tensor known = known_value(input);
      if (known.defined()) return {-1, 0, known};
    }
    return {place.at(input.from.get()), input.output, {}};
  }

  /// What backward() differentiates, if it was always called on single elements.
  class Loss {
   public:
    void add(const Root& root, const at::Tensor& value) {
      is_known_ = is_known_ && root.loss.defined();
      if (!is_known_) return;
      const c10::NoGradGuard no_grad;
      const at::Tensor& weight = root.gradient.tensor;
      const at::Tensor loss = weight.defined() ? value.detach() * weight : value.detach();
      sum_ = sum_.defined() ? sum_ + loss.to(sum_.device()) : loss;
    }
    at::Tensor sum() const { return is_known_ ? sum_ : at::Tensor(); }

   private:
    bool is_known_ = true;
    at::Tensor sum_;
  };

  void sign() {
    const auto add = [this](uint64_t part) {
      signature_ = (signature_ ^ part) * 0x100000001b3ULL + (signature_ >> 29);
    };
    for (size_t i = 0; i < calls_.size(); ++i) {
      add(calls_[i].record ? reinterpret_cast<uintptr_t>(calls_[i].record->op) : 1);
      for (const Source& source : calls_[i].inputs)
        add(source.call < 0 ? 0 : i - static_cast<uint64_t>(source.call) + (uint64_t{source.output} << 32));
    }
  }

  std::vector<at::Tensor> execute(const Record& record, std::vector<at::Tensor> given,
                                  const std::vector<uint32_t>& uses, bool same_numbers) const {
    std::vector<c10::IValue> stack = record.arguments;
    for (size_t i = 0; i < given.size();) {
      const Input& input = record.inputs[i];
      if (input.element < 0) {
        stack[input.argument] = std::move(given[i++]);
        continue;
      }
      auto list = stack[input.argument].toList().copy();
      for (; i < given.size() && record.inputs[i].argument == input.argument; ++i)
        list.set(static_cast<size_t>(record.inputs[i].element), c10::IValue(std::move(given[i])));
      stack[input.argument] = std::move(list);
    }
    given.clear();
    {
      const c10::AutoGradMode grad_mode(record.grad_mode);
      if (record.drew && same_numbers) {
        const at::RecordFunctionGuard seen;
        const Observation again(std::make_shared<RepeatedDraws>(recording_->generators(), record.drew));
        record.op->handle.callBoxed(&stack);
      } else {
        record.op->handle.callBoxed(&stack);
      }
    }
    std::vector<at::Tensor> outputs;
    for_each_tensor(stack, [&](size_t, int32_t, const at::Tensor& tensor) { outputs.push_back(tensor); });
    TORCH_CHECK(outputs.size() == uses.size(), "steppe: ", record.op->name, " gave ", outputs.size(),
                " tensors when it was called again, and ", uses.size(), " before; use step(closure)");
    for (size_t i = 0; i < outputs.size(); ++i)
      if (uses[i] == 0) outputs[i] = at::Tensor();
    return outputs;
  }

  void go_back(const BackwardCall& backward, std::vector<at::Tensor> given, Loss& loss) const {
    std::vector<at::Tensor> values, gradients;
    for (size_t i = 0; i < backward.roots.size(); ++i) {
      at::Tensor& value = values.emplace_back(std::move(given[2 * i]));
      gradients.push_back(std::move(given[2 * i + 1]));
      TORCH_CHECK(value.requires_grad(),
                  "steppe: the value that backward() was called on has no gradient when it is computed again; use "
                  "step(closure)");
      loss.add(backward.roots[i], value);
    }
    std::vector<at::Tensor> params;
    for (const at::Tensor& param : participant_->params)
      if (param.requires_grad()) params.push_back(param);
    const c10::AutoGradMode enabled(true);
    torch::autograd::backward(values, gradients, backward.keeps_graph, /*create_graph=*/false, params);
  }

  // Verification.

  std::vector<at::Tensor> gradients_of_run() const {
    const c10::NoGradGuard no_grad;
    const GradientsAside aside(participant_->params);
    for (const at::Tensor& buffer : participant_->buffers) {
      const auto before = participant_->buffers_before.find(buffer.unsafeGetTensorImpl());
      if (before != participant_->buffers_before.end()) buffer.detach().copy_(before->second);
    }
    run(/*same_numbers=*/true);
    std::vector<at::Tensor> gradients;
    for (const at::Tensor& param : participant_->params) gradients.push_back(param.grad());
    return gradients;
  }

  const Recording* recording_;
  const Participant* participant_;
  std::unordered_map<const Record*, Need> needed_;
  std::unordered_set<const Record*> collected_;
  std::vector<std::shared_ptr<Record>> open_;
  std::vector<Call> calls_;
  std::vector<at::Tensor> others_written_;  ///< buffers that are not its own, which the passes may write to
  AutocastState outside_ = AutocastState::now();
  at::Tensor loss_;
  uint64_t signature_ = 0xcbf29ce484222325ULL;
};

}  // namespace step
STEPPE_NAMESPACE_END
