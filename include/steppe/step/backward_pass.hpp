// One call of backward(): where it began, and whose gradients it reached.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/record_function.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/functions/basic_ops.h>
#include <torch/csrc/autograd/graph_task.h>
#include <torch/version.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <steppe/step/observed.hpp>
#include <steppe/step/participant.hpp>
#include <steppe/step/programs_gradients.hpp>
#include <steppe/step/record.hpp>
#include <steppe/step/sources.hpp>
#include <steppe/step/value_graph.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace step {

/// Follows a recording's backward passes, one at a time, and informs each optimizer whose gradients one has reached.
class BackwardPass {
 public:
  BackwardPass(Sources& sources, ValueGraph& graph) : sources_(sources), graph_(graph) {}

  bool is_running() const {
    const std::shared_ptr<bool> flag = now_.running.lock();
    return flag && *flag;
  }

  /// Called at the first node of a pass. The returned flag must live as long as the engine's task, and become false at
  /// its end.
  std::shared_ptr<bool> begin(const at::RecordFunction& event) {
    now_ = State();
    if (c10::GradMode::is_enabled()) now_.refusal = refusals::create_graph();
    const auto running = std::make_shared<bool>(true);
    now_.running = running;
    const auto gradients = inputs_of(event);
    if (std::strstr(event.name(), "GraphRoot") != nullptr) {
      add_roots_of_several();
    } else {
      for (uint32_t i = 0; i < gradients.size(); ++i)
        if (gradients[i].isTensor() && gradients[i].toTensor().defined())
          add_root(graph_.find(static_cast<uint64_t>(event.seqNr()), event.forwardThreadId(), i),
                   gradients[i].toTensor(), event.name());
    }
    now_.call.keeps_graph = torch::autograd::get_current_graph_task_keep_graph();
    now_.call.number = graph_.next_number();
    for (const Root& root : now_.call.roots) now_.optimizers |= root.from->optimizers;
    note_hooks();
    const bool is_unknown = now_.call.roots.empty();
    for (Participant* participant : sources_.participants())
      if (is_unknown || (participant->bit & now_.optimizers) != 0) now_.before.push_back(accumulation_of(*participant));
    return running;
  }

  /// Only a pass that has reached an optimizer's gradients counts for it; autograd::grad() does not.
  void end() {
    for (const Accumulation& before : now_.before) {
      Participant& participant = *before.participant;
      bool reached = false;
      for (size_t i = 0; i < participant.params.size(); ++i)
        reached = reached || !(before.notes[i] == GradientNote::of(participant.params[i]));
      if (!reached) continue;
      if (before.clear) {
        participant.backwards.clear();
        participant.refusal = {};
      } else if (participant.refusal.empty() && participant.backwards.empty()) {
        participant.refusal = refusals::not_cleared();
      } else if (participant.refusal.empty() && !before.as_left) {
        participant.refusal = refusals::changed("gradients were changed between two calls of backward()");
      }
      if (participant.refusal.empty()) participant.refusal = now_.refusal;
      BackwardCall& call = participant.backwards.emplace_back();
      call.number = now_.call.number;
      call.keeps_graph = now_.call.keeps_graph;
      for (const Root& root : now_.call.roots)
        if ((root.from->optimizers & participant.bit) != 0) call.roots.push_back(root);
      for (size_t i = 0; i < participant.params.size(); ++i) {
        participant.notes[i] = GradientNote::of(participant.params[i]);
        sources_.note_gradient(participant.params[i].grad(), participant);
      }
    }
    now_ = State();
  }

  void forget_unless_running() {
    if (!is_running()) now_ = State();
  }
  /// Called when an optimizer leaves.
  void forget(const Participant& participant) {
    auto& before = now_.before;
    before.erase(std::remove_if(before.begin(), before.end(),
                                [&](const Accumulation& each) { return each.participant == &participant; }),
                 before.end());
  }

  /// A gradient of ones, from which backward() may begin.
  void note_ones(const std::shared_ptr<Record>& record) { ones_.push_back(record); }
  void forget_ones() { ones_.clear(); }

 private:
  /// An optimizer's gradients as a backward() finds them.
  struct Accumulation {
    Participant* participant = nullptr;
    std::vector<GradientNote> notes;
    bool clear = true;    ///< all are undefined or zero
    bool as_left = true;  ///< all are as the last pass left them
  };
  struct State {
    std::weak_ptr<bool> running;  ///< owned by the engine's task, which also ends by an exception
    Refusal refusal;              ///< why it cannot be repeated
    uint64_t optimizers = 0;
    BackwardCall call;
    std::vector<Accumulation> before;
  };

  /// Hooks of tensors would not be called again; those of parameters, which have no next function, belong to them.
  void note_hooks() {
    const auto* nodes = torch::autograd::get_current_graph_task_nodes_in_graph();
    if (nodes == nullptr || !now_.refusal.empty()) return;
    for (torch::autograd::Node* node : *nodes) {
      bool hooked = !node->pre_hooks().empty() || !node->post_hooks().empty();
#if TORCH_VERSION_MAJOR >= 2
      hooked = hooked || !node->tensor_pre_hooks().empty();
#endif
      if (hooked && node->num_outputs() > 0) now_.refusal = refusals::hook(node->name());
    }
  }

  /// autograd::backward() of several tensors, whose functions one additional node joins.
  void add_roots_of_several() {
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 2)
    const auto node = torch::autograd::get_current_node();
    const auto* root = dynamic_cast<const torch::autograd::GraphRoot*>(node ? &*node : nullptr);
    if (root == nullptr) return;
    for (uint32_t i = 0; i < root->num_outputs(); ++i) {
      const torch::autograd::Edge& edge = root->next_edge(i);
      if (edge.is_valid())
        add_root(graph_.find(edge.function->sequence_nr(), edge.function->thread_id(), edge.input_nr), root->outputs[i],
                 edge.function->name());
    }
#else
    // This LibTorch does not show them; but their gradients have just been made, unless the caller gave some:
    // verification detects that.
    for (const std::shared_ptr<Record>& ones : ones_) {
      const Input& loss = ones->inputs.front();
      const at::Tensor tensor = locked(loss.from->outputs[loss.output].tensor);
      const ValueGraph::Value* value = graph_.value_of(tensor);
      const at::Tensor gradient = locked(ones->outputs.front().tensor);
      if (gradient.defined() && value != nullptr) add_root(value, gradient, ones->op->name);
    }
#endif
  }

  void add_root(const ValueGraph::Value* found, const at::Tensor& gradient, const std::string& name) {
    if (found == nullptr) {
      now_.refusal = refusals::unknown_root(name);
      return;
    }
    Root root;
    root.from = found->record;
    root.output = found->output;
    const at::Tensor loss = locked(found->tensor);
    Record holder;
    holder.op = found->record->op;
    Input value;
    value.tensor = loss;
    graph_.take_value(std::move(value), *found, holder);
    if (!holder.refusal.empty()) {
      now_.refusal = refusals::unknown_root(name);
      return;
    }
    if (loss.numel() == 1) root.loss = loss.detach();
    root.gradient = graph_.take(gradient, holder);
    if (!holder.refusal.empty()) now_.refusal = refusals::gradient_of_a_gradient();
    now_.call.roots.push_back(std::move(root));
  }

  static Accumulation accumulation_of(Participant& participant) {
    Accumulation found;
    found.participant = &participant;
    for (size_t i = 0; i < participant.params.size(); ++i) {
      found.notes.push_back(GradientNote::of(participant.params[i]));
      found.as_left = found.as_left && participant.notes[i] == found.notes.back();
      found.clear = found.clear && is_clear(participant.params[i].grad());
    }
    return found;
  }

  Sources& sources_;
  ValueGraph& graph_;
  State now_;
  std::vector<std::shared_ptr<Record>> ones_;
};

}  // namespace step
STEPPE_NAMESPACE_END
