// What a thread's forward and backward passes did, as far as it depends on parameters that are trained here.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/record_function.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/graph_task.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include <steppe/step/backward_pass.hpp>
#include <steppe/step/draw_observer.hpp>
#include <steppe/step/drawn_numbers.hpp>
#include <steppe/step/generator_state.hpp>
#include <steppe/step/observed.hpp>
#include <steppe/step/participant.hpp>
#include <steppe/step/programs_gradients.hpp>
#include <steppe/step/record.hpp>
#include <steppe/step/sources.hpp>
#include <steppe/step/value_graph.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace step {

/// Observes a thread (the public interface of LibTorch's profiler) and keeps each outermost operator that depends on a
/// parameter or buffer of the optimizers that take part, as a graph, and each backward() that reached their gradients.
/// Knows tensors, not optimizers.
///
/// Cost: one or two microseconds per operator; memory: constants that such operators received, until the step is over.
class Recording : public std::enable_shared_from_this<Recording> {
 public:
  /// The one of this thread, made if there is none.
  static std::shared_ptr<Recording> of_this_thread();

  ~Recording();
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

  std::mutex& mutex() const { return mutex_; }

  /// Adds an optimizer's part. False: 64 others take part already.
  bool join(Participant& participant) {
    const Locked here(*this);
    const bool joined = sources_.add(participant);
    learn_generators();
    return joined;
  }

  void leave(Participant& participant) {
    const Locked here(*this);
    forget_past_of(participant);
    backward_.forget(participant);
    sources_.remove(participant);
    learn_generators();
  }

  /// Called after its tensors have changed. A pass that did not include all of its parameters is dropped.
  void learn(Participant& participant, std::vector<at::Tensor> params, std::vector<at::Tensor> buffers) {
    const Locked here(*this);
    const bool are_others = params.size() != participant.params.size() ||
                            !std::equal(params.begin(), params.end(), participant.params.begin(),
                                        [](const at::Tensor& a, const at::Tensor& b) { return a.is_same(b); });
    participant.params = std::move(params);
    participant.buffers = std::move(buffers);
    if (are_others) {
      participant.backwards.clear();
      participant.notes.clear();
      for (const at::Tensor& param : participant.params) participant.notes.push_back(GradientNote::of(param));
      participant.refusal = refusals::added_parameters();
    }
    sources_.learn();
    learn_generators();
  }

  /// Called after a step: what came before is past to this optimizer, and its parameters have changed.
  void step_done(Participant& participant) {
    const Locked here(*this);
    for (Participant* other : sources_.participants())
      if (other != &participant) forget_passes_over(*other, participant.bit);
    participant.backwards.clear();
    participant.refusal = {};
    participant.has_stepped = participant.has_old_gradients = true;
    std::unordered_set<const c10::StorageImpl*> changed;
    for (size_t i = 0; i < participant.params.size(); ++i) {
      participant.notes[i] = GradientNote::of(participant.params[i]);
      if (memory_of(participant.params[i]) != nullptr) changed.insert(memory_of(participant.params[i]));
    }
    sources_.note_changes(changed);
    if (sources_.learn_memory()) learn_generators();
    backward_.forget_unless_running();
    begin_step_of(participant);
    for (Participant* other : sources_.participants())
      if (other != &participant && ++other->steps_of_others % kPatience == 0) forget_past_of(*other);
  }

  /// An iteration begins, or is about to call backward(): what was computed from the weights before does not belong to
  /// this step, unless a forward pass is in progress.
  void gradients_are_cleared(Participant& participant) {
    const Locked here(*this);
    iteration_begins(participant);
  }

  /// While one lives, the backward passes of this recording's graphs are those of a replay. On any thread.
  class Replaying {
   public:
    explicit Replaying(const Recording& recording) : flag_(recording.replays_) { flag_ = true; }
    ~Replaying() { flag_ = false; }
    Replaying(const Replaying&) = delete;
    Replaying& operator=(const Replaying&) = delete;

   private:
    std::atomic<bool>& flag_;
  };

  /// See ValueGraph. The mutex must be held, as for changes_of().
  int64_t version(const at::Tensor& tensor) const { return graph_.version(tensor); }

  /// LibTorch's own generators that its operators may draw from.
  const std::vector<at::Generator>& generators() const { return generators_; }

  /// How often a parameter was seen to change.
  int64_t changes_of(const at::Tensor& param) const {
    const Source* source = sources_.of(param);
    return source == nullptr ? -1 : source->changes;
  }

 private:
  /// From this number of nested operators on it pays not to observe them.
  static constexpr int kManyNested = 2;

  /// Values of an optimizer that makes no steps itself are kept for this many steps of others.
  static constexpr int64_t kPatience = 64;

  /// Nothing is recorded while the mutex is held: what is released may run operators.
  class Locked {
   public:
    explicit Locked(const Recording& recording) : lock_(recording.mutex_) {}

   private:
    const Pause pause_;
    const std::lock_guard<std::mutex> lock_;
  };

  /// The observation's part on one thread.
  struct Observer {
    std::weak_ptr<Recording> recording;
    at::CallbackHandle handle = 0;
    int depth = 0;                        ///< of operators within operators
    int nested = 0;                       ///< operators within the outermost
    bool hides = false;                   ///< the outermost, those within it
    bool in_engine = false;               ///< the outermost is a node of a backward()
    bool is_of_gradients = false;         ///< and its results may be seen by the program
    std::shared_ptr<DrawObserver> draws;  ///< the outermost may draw random numbers
  };
  /// Recordings by LibTorch's number of their thread, for nodes of a backward() that run elsewhere.
  struct Registry {
    std::mutex mutex;
    std::unordered_map<uint64_t, std::weak_ptr<Recording>> recordings;
    at::CallbackHandle handle = 0;
  };

  Recording() = default;

  /// Null when the thread is ending: optimizers of static lifetime outlive it.
  static Observer* observer() {
    struct Owner {
      ~Owner() { ended() = true; }
      static bool& ended() {
        static thread_local bool flag = false;
        return flag;
      }
      Observer observer;
    };
    static thread_local Owner of_thread;
    return Owner::ended() ? nullptr : &of_thread.observer;
  }
  static Registry& registry() {
    static Registry* all = new Registry;  // outlives optimizers of static lifetime
    return *all;
  }

  // Operators.

  static std::unique_ptr<at::ObserverContext> operator_starts(const at::RecordFunction& event) {
    if (Pause::on() || observer() == nullptr) return nullptr;
    Observer& seen = *observer();
    if (seen.depth > 0) {
      ++seen.depth;
      ++seen.nested;
    } else {
      outermost_starts(seen, event);
    }
    return seen.draws ? seen.draws->starts(event) : nullptr;
  }

  static void outermost_starts(Observer& seen, const at::RecordFunction& event) {
    const std::shared_ptr<Recording> recording = seen.recording.lock();
    if (!recording) return;
    const std::lock_guard<std::mutex> lock(recording->mutex_);
    const Operator* op = recording->operator_of(event);
    seen.in_engine = op == nullptr && is_engine(event.name());
    if (op == nullptr && !seen.in_engine) return;  // a range marked by the program
    seen.depth = 1;
    seen.nested = 0;
    seen.is_of_gradients = seen.in_engine && needs_results(event);
    if (op != nullptr) {
      const Pause pause;
      recording->begin(*op, inputs_of(event));
      seen.draws = recording->noted_;
    }
    const bool needs_no_more = seen.in_engine ? recording->backward_.is_running() && !needs_results(event)
                                              : op->nested >= kManyNested && !seen.draws;
    if (needs_no_more && is_only_observer()) {
      seen.hides = true;
      at::enableRecordFunction(false);
    }
  }

  static void operator_ends(const at::RecordFunction& event, at::ObserverContext* drawing) {
    if (observer() == nullptr) return;
    Observer& seen = *observer();
    if (drawing != nullptr && seen.draws) seen.draws->ended(*drawing);
    if (Pause::on()) return;
    if (seen.depth == 0) return;
    const bool outermost = --seen.depth == 0;
    if (outermost) seen.draws.reset();
    if (outermost && seen.hides) {
      seen.hides = false;
      at::enableRecordFunction(true);
    }
    if (seen.in_engine ? !seen.is_of_gradients : !outermost) return;
    const std::shared_ptr<Recording> recording = seen.recording.lock();
    if (!recording) return;
    const std::lock_guard<std::mutex> lock(recording->mutex_);
    const Pause pause;
    if (seen.in_engine)
      recording->note_results(event.outputs());
    else
      recording->end(event.outputs(), seen.nested);
  }

  /// A node whose results a program may access: within autograd::grad(), or of a leaf.
  static bool needs_results(const at::RecordFunction& node) {
    const auto* partial = torch::autograd::get_current_graph_task_exec_info();
    return (partial != nullptr && !partial->empty()) || is_accumulation(node);
  }
  static bool is_accumulation(const at::RecordFunction& node) {
    return std::strstr(node.name(), "torch::autograd::AccumulateGrad") != nullptr;
  }

  /// A profiler that the program has started sees everything.
  static bool is_only_observer() {
    const auto callbacks = at::getStepCallbacksUnlessEmpty(at::RecordScope::FUNCTION);
    return callbacks.has_value() && callbacks->callbacks_.size() == 1;
  }

  static bool is_engine(const char* name) { return std::strncmp(name, "autograd::engine::", 18) == 0; }

  const Operator* operator_of(const at::RecordFunction& event) {
    const auto known = operators_.find(event.name());
    if (known != operators_.end()) return known->second.get();
    const auto name = event.operator_name();
    if (!name) return nullptr;
    const auto handle = c10::Dispatcher::singleton().findSchema(*name);
    if (!handle) return nullptr;
    // The name is the schema's own, which stays where it is.
    return operators_.emplace(event.name(), std::make_unique<Operator>(*handle)).first->second.get();
  }

  void begin(const Operator& op, c10::ArrayRef<const c10::IValue> arguments) {
    op_ = &op;
    pending_.reset();
    noted_.reset();
    plain_memory_.clear();
    plain_gradient_ = 0;
    if (!op.makes_ones) backward_.forget_ones();
    for (Participant* participant : sources_.participants())
      if (participant->has_old_gradients && are_cleared(*participant)) iteration_begins(*participant);
    uint64_t optimizers = 0;
    bool differentiable = false;
    for_each_tensor(arguments, [&](size_t, int32_t, const at::Tensor& tensor) {
      optimizers |= graph_.dependence_of(tensor);
      differentiable = differentiable || (tensor.defined() && tensor.requires_grad());
    });
    if (optimizers == 0) return begin_plain(op, arguments);
    differentiable = differentiable && c10::GradMode::is_enabled();

    auto record = std::make_shared<Record>();
    record->op = &op;
    record->optimizers = optimizers;
    record->grad_mode = c10::GradMode::is_enabled();
    record->autocast = AutocastState::now();
    bool from_outside = false;
    if (op.writes_any)
      for_each_tensor(arguments, [&](size_t i, int32_t, const at::Tensor& tensor) {
        if (op.writes[i] && !graph_.is_writable(op, tensor, differentiable, *record)) from_outside = true;
      });
    if (from_outside) return;  // such as clamping of weights or averages between steps

    if (op.training >= 0) note_statistics(op, arguments);

    record->arguments.assign(arguments.begin(), arguments.end());
    for (c10::IValue& argument : record->arguments) {
      if (argument.isTensor()) argument = c10::IValue();
      if (argument.isList()) argument = without_tensors(argument);
    }
    for_each_tensor(arguments, [&](size_t i, int32_t element, const at::Tensor& tensor) {
      Input input = graph_.take(tensor, *record);
      input.argument = static_cast<uint32_t>(i);
      input.element = element;
      input.written = op.writes[i];
      input.is_statistic = op.is_statistic[i];
      record->inputs.push_back(std::move(input));
    });
    note_place(*record, differentiable);
    record->number = graph_.next_number();
    if (op.may_draw) noted_ = std::make_shared<NotedDraws>(generators_);
    pending_ = std::move(record);
  }

  /// Verification starts from the statistics as they were before the step, if the program reads them. Whether it does
  /// is not known in the first step.
  void note_statistics(const Operator& op, c10::ArrayRef<const c10::IValue> arguments) {
    const c10::IValue& training = arguments[static_cast<size_t>(op.training)];
    const bool reads = training.isBool() && !training.toBool();
    for (Participant* participant : sources_.participants()) {
      participant->reads_statistics = participant->reads_statistics || reads;
      if (reads || (participant->has_stepped && !participant->reads_statistics)) continue;
      for (size_t i = 0; i < arguments.size(); ++i)
        if (op.is_statistic[i] && arguments[i].isTensor() && arguments[i].toTensor().defined())
          sources_.save_buffer(arguments[i].toTensor());
    }
  }

  /// Before an optimizer's first step the start of its first iteration may be unknown: a value without a gradient that
  /// was made before its forward pass is a part of that, or a copy of the weights from before the loop.
  void note_place(Record& record, bool differentiable) {
    for (const Input& input : record.inputs) {
      const bool is_value = input.kind == Input::Kind::Value;
      record.of_params |= input.kind == Input::Kind::Parameter || (is_value && input.from->of_params);
      record.of_data |=
          (input.kind == Input::Kind::Constant && input.tensor.defined()) || (is_value && input.from->of_data);
    }
    for (Participant* participant : sources_.participants()) {
      if ((participant->bit & record.optimizers) == 0 || participant->is_iterating) continue;
      if (differentiable && record.of_data)
        participant->is_iterating = true;
      else if (record.of_params && (!differentiable || record.op->detaches))
        record.unplaced |= participant->bit;
    }
  }

  /// The list without its tensors, which are not held.
  static c10::IValue without_tensors(const c10::IValue& list) {
    bool any = false;
    for (const c10::IValue& element : list.toListRef()) any = any || element.isTensor();
    if (!any) return list;
    auto copy = list.toList().copy();
    for (size_t k = 0; k < copy.size(); ++k)
      if (copy.get(k).isTensor()) copy.set(k, c10::IValue(at::Tensor()));
    return copy;
  }

  void begin_plain(const Operator& op, c10::ArrayRef<const c10::IValue> arguments) {
    plain_ = true;
    for_each_tensor(arguments, [&](size_t i, int32_t, const at::Tensor& tensor) {
      const c10::StorageImpl* memory = memory_of(tensor);
      if (memory == nullptr) return;
      plain_memory_.push_back(memory);
      if (op.writes[i]) {
        sources_.note_write(op, memory);
        graph_.note_write(memory);
      }
      plain_gradient_ = (std::max)(plain_gradient_, graph_.gradient_of(memory));
      if (sources_.is_gradient_memory(memory)) plain_gradient_ = graph_.next_number();
    });
  }

  void end(const std::vector<c10::IValue>& outputs, int nested) {
    if (op_ != nullptr && op_->nested < nested) op_->nested = nested;
    if (plain_) end_plain(outputs);
    plain_ = false;
    const std::shared_ptr<Record> record = std::move(pending_);
    const std::shared_ptr<NotedDraws> noted = std::move(noted_);
    pending_.reset();
    noted_.reset();
    if (!record || outputs.size() != record->op->handle.schema().returns().size()) return;  // it has thrown
    if (noted && !noted->numbers()->empty()) record->drew = noted->numbers();
    graph_.add(record, outputs);
    if (record->op->makes_ones && record->inputs.front().kind == Input::Kind::Value) backward_.note_ones(record);
  }

  void end_plain(const std::vector<c10::IValue>& outputs) {
    for_each_tensor(outputs, [&](size_t, int32_t, const at::Tensor& tensor) {
      const c10::StorageImpl* memory = memory_of(tensor);
      if (memory == nullptr) return;
      if (tensor.requires_grad() && !tensor.is_leaf()) graph_.note_other(tensor);
      bool is_new = true;
      for (const c10::StorageImpl* each : plain_memory_) is_new = is_new && each != memory;
      // Older memory is that of parameters whose optimizer makes its step.
      if (is_new || (plain_gradient_ != 0 && graph_.is_of_this_step(memory, ~uint64_t{0})))
        graph_.bear(tensor, plain_gradient_);
    });
  }

  /// What a backward pass makes for the program.
  template <class Values>
  void note_results(const Values& values) {
    for_each_tensor(values, [&](size_t, int32_t, const at::Tensor& tensor) {
      if (memory_of(tensor) != nullptr && sources_.in(memory_of(tensor)) == nullptr)
        graph_.bear(tensor, graph_.next_number());
    });
  }

  void learn_generators() {
    std::vector<c10::Device> devices;
    for (const Participant* participant : sources_.participants())
      for (const at::Tensor& param : participant->params)
        if (std::find(devices.begin(), devices.end(), param.device()) == devices.end())
          devices.push_back(param.device());
    generators_ = default_generators(devices);
  }

  // Backward passes.

  static std::unique_ptr<at::ObserverContext> node_starts(const at::RecordFunction& event) {
    if (Pause::on()) return nullptr;
    std::shared_ptr<Recording> recording;
    {
      Registry& all = registry();
      const std::lock_guard<std::mutex> lock(all.mutex);
      const auto found = all.recordings.find(event.forwardThreadId());
      if (found != all.recordings.end()) recording = found->second.lock();
    }
    if (recording && !recording->replays_) {
      const Locked here(*recording);
      // What a leaf's grad() becomes: a value that is computed from it cannot be computed again. The leaf may be shared
      // with another thread, whose recording this is.
      if (is_accumulation(event))
        recording->note_results(inputs_of(event));
      else if (!recording->backward_.is_running())
        recording->backward_begins(event);
    }
    return nullptr;
  }

  void backward_begins(const at::RecordFunction& event) {
    torch::autograd::Engine::get_default_engine().queue_callback(
        [weak_this = weak_from_this(), running = backward_.begin(event)] {
          if (const std::shared_ptr<Recording> recording = weak_this.lock()) {
            const Locked here(*recording);
            *running = false;
            recording->backward_.end();
          }
        });
  }

  /// Drops passes of an optimizer that have read what another one has just changed.
  static void forget_passes_over(Participant& participant, uint64_t changed) {
    bool any = false;
    for (const BackwardCall& call : participant.backwards)
      for (const Root& root : call.roots) any = any || (root.from->optimizers & changed) != 0;
    if (!any) return;
    participant.backwards.clear();
    if (participant.refusal.empty()) participant.refusal = refusals::other_step();
  }

  /// Detects zero_grad() where the program holds the optimizer by its base class, in which it is not virtual.
  static bool are_cleared(const Participant& participant) {
    for (size_t i = 0; i < participant.params.size(); ++i)
      if (participant.notes[i].is_defined()) {
        const at::Tensor& gradient = participant.params[i].grad();
        return !(participant.notes[i] == GradientNote::of(participant.params[i])) && is_clear(gradient);
      }
    return false;
  }

  void iteration_begins(Participant& participant) {
    participant.has_old_gradients = false;
    if (sources_.learn_memory()) learn_generators();
    if (!graph_.is_under_way(participant.bit)) begin_step_of(participant);
  }

  void begin_step_of(Participant& participant) {
    forget_past_of(participant);
    participant.buffers_before.clear();
    participant.since = graph_.last_number();
    participant.steps_of_others = 0;
    participant.is_iterating = true;
  }

  void forget_past_of(Participant& participant) {
    sources_.forget_gradients_of(participant.bit);
    graph_.forget_past_of(participant.bit);
    backward_.forget_ones();
  }

  mutable std::mutex mutex_;
  std::thread::id owner_ = std::this_thread::get_id();
  uint64_t thread_number_ = 0;
  std::unordered_map<const char*, std::unique_ptr<Operator>> operators_;
  Sources sources_;
  ValueGraph graph_{sources_};
  const Operator* op_ = nullptr;
  std::shared_ptr<Record> pending_;
  std::shared_ptr<NotedDraws> noted_;  ///< of the pending record
  bool plain_ = false;
  uint64_t plain_gradient_ = 0;
  std::vector<const c10::StorageImpl*> plain_memory_;
  std::vector<at::Generator> generators_;
  BackwardPass backward_{sources_, graph_};
  mutable std::atomic<bool> replays_ = false;
};

inline std::shared_ptr<Recording> Recording::of_this_thread() {
  TORCH_CHECK(observer() != nullptr, "steppe: an optimizer was made on a thread that is ending");
  Observer& seen = *observer();
  if (std::shared_ptr<Recording> there = seen.recording.lock()) return there;
  const std::shared_ptr<Recording> made(new Recording);
  made->thread_number_ = at::RecordFunction::currentThreadId();
  seen.recording = made;
  seen.depth = 0;
  if (seen.handle == 0)
    seen.handle = at::addThreadLocalCallback(at::RecordFunctionCallback(&operator_starts, &operator_ends)
                                                 .needsInputs(true)
                                                 .needsOutputs(true)
                                                 .scopes({at::RecordScope::FUNCTION}));
  Registry& all = registry();
  const std::lock_guard<std::mutex> lock(all.mutex);
  all.recordings[made->thread_number_] = made;
  // For every thread: a backward pass may run on another one than the forward pass.
  if (all.handle == 0)
    all.handle = at::addGlobalCallback(
        at::RecordFunctionCallback(&node_starts).needsInputs(true).scopes({at::RecordScope::BACKWARD_FUNCTION}));
  return made;
}

inline Recording::~Recording() {
  if (owner_ == std::this_thread::get_id() && observer() != nullptr) {
    Observer& seen = *observer();
    if (seen.handle != 0) at::removeCallback(seen.handle);
    seen.handle = 0;
    seen.depth = 0;
  }
  Registry& all = registry();
  const std::lock_guard<std::mutex> lock(all.mutex);
  const auto own = all.recordings.find(thread_number_);
  if (own != all.recordings.end() && own->second.expired()) all.recordings.erase(own);
  if (all.recordings.empty() && all.handle != 0) {
    at::removeCallback(all.handle);
    all.handle = 0;
  }
}

}  // namespace step
STEPPE_NAMESPACE_END
