// LibTorch's optimizers with a step in one pass over memory.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>
#include <torch/optim/optimizer.h>
#include <torch/serialize/archive.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include <steppe/base/device_numbers.hpp>
#include <steppe/base/hidden_gradients.hpp>
#include <steppe/base/rules.hpp>
#include <steppe/base/skippable.hpp>
#include <steppe/base/state.hpp>
#include <steppe/base/traits.hpp>
#include <steppe/kernels/dispatch.hpp>
#include <steppe/kernels/dispatch_update.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN

/// torch::optim::SGD, Adam, AdamW, Adagrad or RMSprop with the same formulas, options, state and checkpoints, and a
/// step() that passes over memory once for each parameter group instead of once for each operator:
///
///     steppe::Fused<torch::optim::AdamW> optimizer(model->parameters(), torch::optim::AdamWOptions(1e-3));
///     steppe::SAM<steppe::Fused<torch::optim::SGD>> sam(*model, torch::optim::SGDOptions(0.1).momentum(0.9));
///
/// The weights are Base's up to rounding: Base rounds to the parameter's dtype after every operator, this computes in
/// float (in double for float64) and rounds what it stores. The formulas: kernels::UpdateRule; what computes them:
/// kernels::Updater. A parameter for which that is not possible is updated by Base's own step, see fused_groups().
///
/// On a device other than the CPU the count of steps and the learning rate are numbers of the device, so that a CUDA
/// graph of a step continues the count when it is replayed: call refresh_learning_rates() before a replay where a
/// scheduler has changed a rate of SGD, Adam or AdamW. state() has the counts after synchronize_counts(), which save()
/// calls. The other options, and the rate of Adagrad and RMSprop, are as they were when the graph was captured. RMSprop
/// takes a dozen operators over the whole list there.
template <class Base>
class Fused : public Base, public base::Skippable {
  using Rules = base::Rules<Base>;
  using State = typename Rules::State;
  static_assert(std::is_same_v<Base, torch::optim::SGD> || std::is_same_v<Base, torch::optim::Adam> ||
                    std::is_same_v<Base, torch::optim::AdamW> || std::is_same_v<Base, torch::optim::Adagrad> ||
                    std::is_same_v<Base, torch::optim::RMSprop>,
                "steppe: Fused supports torch::optim::SGD, Adam, AdamW, Adagrad and RMSprop themselves; another class "
                "has a step of its own, which would be lost");

 public:
  using Base::Base;
  using typename torch::optim::Optimizer::LossClosure;
  /// The optimizer that checkpoints name: they fit both.
  using CheckpointBase = Base;

  /// Calls the closure, as Base does, then makes the step. Errors: those of Base, and a step that a CUDA graph would
  /// repeat wrongly, before fused parameters have changed.
  at::Tensor step(LossClosure closure = nullptr) override {
    const Emptied at_the_end(*this);
    at::Tensor loss;
    if (closure) {
      const c10::AutoGradMode with_gradients(true);
      loss = closure();
    }
    const c10::NoGradGuard no_grad;
    if (found_inf_.defined() && !keeps_numbers_on(found_inf_.device()) && is_skipped()) return loss;
    sort();
    check_captured_lists();
    if (found_inf_.defined() && !device_can_skip() && is_skipped()) return loss;
    if (!all_fused_) step_of_others();
    for (size_t i = 0; i < used_; ++i) run(lists_[i]);
    return loss;
  }

  /// The next step() changes nothing where `found_inf` (float32, one element, on any device) is 1. A GradScaler calls
  /// this instead of waiting for the device. Throws c10::Error for another kind of tensor.
  void skip_where(const at::Tensor& found_inf) override {
    TORCH_CHECK(found_inf.defined() && found_inf.scalar_type() == at::kFloat && found_inf.numel() == 1,
                "steppe: skip_where() takes a float32 tensor of one element, 1 where the next step is to be skipped");
    found_inf_ = found_inf;
  }

  /// For each parameter group, whether the step of all its parameters is fused, with the current gradients. It is not
  /// where a parameter or a gradient is sparse, complex or an integer, one differs from the other in dtype or device, a
  /// parameter's memory has gaps or overlaps itself, its device has no operator in this LibTorch, or its state was made
  /// with other options (amsgrad, momentum): that parameter is updated by Base's step, the others are not. A group
  /// without any gradient is fused.
  std::vector<bool> fused_groups() const {
    std::vector<bool> fused;
    const std::vector<const void*> entangled = entangled_parameters();
    for (const auto& group : this->param_groups()) {
      Sorter sorter(*this, group, entangled);
      bool all = true;
      State* state = nullptr;
      for (const at::Tensor& param : group.params())
        all = all && (!param.grad().defined() || sorter.is_fused(param, state));
      fused.push_back(all);
    }
    return fused;
  }

  /// Whether the step is fused; if not, Base's own step updates all parameters. On by default.
  ///@{
  bool enabled() const { return enabled_; }
  Fused& enabled(bool value) {
    enabled_ = value;
    return *this;
  }
  ///@}

  /// Takes the learning rates from the groups' options, for a CUDA graph that is replayed next. Errors: a changed rate
  /// of Adagrad or RMSprop, which a graph keeps.
  void refresh_learning_rates() {
    for (base::DeviceNumbers& numbers : on_devices_) {
      const double rate = rate_of(numbers);
      TORCH_CHECK(reads_rates() || !numbers.is_captured() || is_same(rate, numbers.lr()),
                  "steppe: a CUDA graph keeps the learning rate of this optimizer, which has changed from ",
                  numbers.lr(), " to ", rate, " in parameter group ", numbers.group(), "; capture the step again");
      numbers.set_rate(rate);
    }
  }

  /// Writes the step counts, which continue in a CUDA graph, into state(). Waits for the devices.
  void synchronize_counts() {
    for (base::DeviceNumbers& numbers : on_devices_) {
      if (!numbers.counts() || !numbers.is_ahead()) continue;
      const int64_t counted = numbers.counted_on_host(), made = numbers.synchronize();
      for (const at::Tensor& param : numbers.params()) {
        int64_t* const count = count_of(param);
        // Not where other code has set it.
        if (count != nullptr && *count == counted) *count = made;
      }
    }
  }

  /// Errors: a step that a CUDA graph would repeat wrongly, as far as that is known before its gradients exist.
  void check_capture() const {
    if (!enabled_ && Rules::kind == Kind::SGD) return;
    TORCH_CHECK(
        enabled_,
        "steppe: a step is captured into a CUDA graph, but this optimizer is not enabled(): LibTorch's own step "
        "counts on the host");
    TORCH_CHECK(!on_devices_.empty(),
                "steppe: a step is captured into a CUDA graph, but this optimizer has made none yet, and every replay "
                "would start from the beginning; make one before");
    for (const base::DeviceNumbers& numbers : on_devices_)
      TORCH_CHECK(is_same(rate_of(numbers), numbers.lr()),
                  "steppe: a step is captured into a CUDA graph, but the learning rate of parameter group ",
                  numbers.group(), " has changed to ", rate_of(numbers),
                  " since the last step; call refresh_learning_rates() before the capture");
  }

  /// Writes what Base writes; waits for the devices.
  void save(torch::serialize::OutputArchive& archive) const override {
    // state() receives the devices' counts: the same state, written to another place.
    const_cast<Fused&>(*this).synchronize_counts();
    Base::save(archive);
  }
  /// Reads what save() or Base has written. Errors: those of Base.
  void load(torch::serialize::InputArchive& archive) override {
    Base::load(archive);
    for (base::DeviceNumbers& numbers : on_devices_)
      if (const int64_t* const count = count_of(numbers.params().front())) numbers.set_count(*count);
  }

 protected:
  /// Whether counts and rates are numbers of the device. Tests override it.
  virtual bool keeps_numbers_on(at::Device device) const { return !device.is_cpu(); }

 private:
  using Kind = kernels::UpdateRule::Kind;

  /// The memory of a parameter.
  struct Range {
    uintptr_t begin, end;
    const void* param;
  };

  /// Parameters of one group at one step, on one device and of one dtype.
  struct List {
    size_t group = 0;
    int64_t step = 0;  ///< that is being made, from 1; 0 if steps are not counted
    kernels::UpdateRule rule;
    kernels::UpdateList tensors;
    std::vector<State*> states;  ///< null: none is kept yet
  };

  /// No gradient is held between steps.
  struct Emptied {
    explicit Emptied(Fused& all) : optimizer(all) {}
    Emptied(const Emptied&) = delete;
    Emptied& operator=(const Emptied&) = delete;
    ~Emptied() {
      optimizer.empty();
      optimizer.found_inf_ = at::Tensor();
    }
    Fused& optimizer;
  };

  void empty() {
    for (size_t i = 0; i < used_; ++i) {
      lists_[i].tensors.clear();
      lists_[i].states.clear();
    }
    used_ = 0;
    all_fused_ = true;
  }

  double rate_of(const base::DeviceNumbers& numbers) const {
    return Rules::rule_of(this->param_groups()[numbers.group()].options()).lr;
  }

  static bool is_same(double a, double b) { return !(a < b || a > b); }
  /// The operators of these take a rate of the device.
  static constexpr bool reads_rates() {
    return Rules::kind == Kind::SGD || Rules::kind == Kind::Adam || Rules::kind == Kind::AdamW;
  }

  State* state_of(const at::Tensor& param) const { return static_cast<State*>(base::find_state(this->state(), param)); }
  int64_t* count_of(const at::Tensor& param) const {
    State* const state = state_of(param);
    return state == nullptr ? nullptr : Rules::fields_of(*state).step;
  }

  /// Parameters that share memory with another one, or are listed twice: LibTorch updates them in sequence, which a
  /// pass over all at once would not.
  std::vector<const void*> entangled_parameters() const {
    ranges_.clear();
    for (const auto& group : this->param_groups())
      for (const at::Tensor& param : group.params()) {
        if (param.layout() != at::kStrided || param.numel() == 0) continue;
        const auto begin = reinterpret_cast<uintptr_t>(param.data_ptr());
        ranges_.push_back({begin, begin + param.nbytes(), param.unsafeGetTensorImpl()});
      }
    std::sort(ranges_.begin(), ranges_.end(), [](const Range& x, const Range& y) { return x.begin < y.begin; });
    std::vector<const void*> entangled;
    size_t longest = 0;  // of those so far the one that ends last
    for (size_t i = 1; i < ranges_.size(); ++i) {
      if (ranges_[i].begin < ranges_[longest].end) {
        entangled.push_back(ranges_[longest].param);
        entangled.push_back(ranges_[i].param);
      }
      if (ranges_[i].end > ranges_[longest].end) longest = i;
    }
    std::sort(entangled.begin(), entangled.end());
    return entangled;
  }

  /// Decides for the parameters of a group which are fused, and finds their states.
  class Sorter {
   public:
    Sorter(const Fused& all, const torch::optim::OptimizerParamGroup& group, const std::vector<const void*>& entangled)
        : optimizer_(all), rule_(Rules::rule_of(group.options())), entangled_(entangled) {}

    const kernels::UpdateRule& rule() const { return rule_; }

    /// `state`: null where there is none yet.
    bool is_fused(const at::Tensor& param, State*& state) {
      if (!optimizer_.enabled_) return false;
      if (!has_update_ || dtype_ != param.scalar_type() || device_ != param.device()) {
        dtype_ = param.scalar_type();
        device_ = param.device();
        has_update_ = kernels::has_update(rule_.kind, device_, dtype_);
      }
      if (!has_update_ || !kernels::lies_like(param, param) || !has_like(param, param.grad())) return false;
      if (!entangled_.empty() && std::binary_search(entangled_.begin(), entangled_.end(), param.unsafeGetTensorImpl()))
        return false;
      state = optimizer_.state_of(param);
      if (state == nullptr) return Rules::makes_states;
      const base::StateFields fields = Rules::fields_of(*state);
      for (int k = 0; k < kernels::kKept; ++k) {
        if (!rule_.keeps(k)) continue;
        const at::Tensor& kept = *fields.kept[k];
        if (kept.defined() ? !has_like(param, kept) : Rules::kind != Kind::SGD) return false;
      }
      return true;
    }

   private:
    static bool has_like(const at::Tensor& param, const at::Tensor& tensor) {
      return tensor.layout() == at::kStrided && tensor.scalar_type() == param.scalar_type() &&
             tensor.device() == param.device() && tensor.sizes() == param.sizes();
    }

    const Fused& optimizer_;
    kernels::UpdateRule rule_;
    const std::vector<const void*>& entangled_;
    at::ScalarType dtype_ = at::ScalarType::Undefined;
    at::Device device_ = at::kCPU;
    bool has_update_ = false;
  };

  /// The state that Base makes at a parameter's first step; the update fills SGD's buffer.
  State& make_state(const at::Tensor& param, const kernels::UpdateRule& rule) {
    auto made = std::make_unique<State>();
    const base::StateFields fields = Rules::fields_of(*made);
    if (Rules::kind != Kind::SGD)
      for (int k = 0; k < kernels::kKept; ++k)
        if (rule.keeps(k)) *fields.kept[k] = at::zeros_like(param, at::MemoryFormat::Preserve);
    State& state = *made;
    this->state()[base::state_key(param)] = std::move(made);
    return state;
  }

  /// Fills the lists with the parameters that are fused.
  void gather() {
    empty();
    const auto& groups = this->param_groups();
    const std::vector<const void*> entangled = entangled_parameters();
    for (size_t k = 0; k < groups.size(); ++k) {
      Sorter sorter(*this, groups[k], entangled);
      const size_t begin = used_;
      for (const at::Tensor& param : groups[k].params()) {
        if (!param.grad().defined()) continue;
        State* state = nullptr;
        if (sorter.is_fused(param, state))
          add(param, state, sorter.rule(), begin, k);
        else
          all_fused_ = false;
      }
    }
  }

  /// The same. Numbers of a device whose list no longer exists are written into state() first, and dropped unless a
  /// graph reads them.
  void sort() {
    gather();
    bool all_are_there = true, any_ahead = false;
    for (const base::DeviceNumbers& numbers : on_devices_) {
      all_are_there = all_are_there && list_of(numbers) != nullptr;
      any_ahead = any_ahead || numbers.is_ahead();
    }
    if (all_are_there) return;
    if (any_ahead) {
      synchronize_counts();
      gather();
    }
    on_devices_.erase(std::remove_if(on_devices_.begin(), on_devices_.end(),
                                     [this](const base::DeviceNumbers& numbers) {
                                       return !numbers.is_captured() && list_of(numbers) == nullptr;
                                     }),
                      on_devices_.end());
  }

  const List* list_of(const base::DeviceNumbers& numbers) const {
    for (size_t i = 0; i < used_; ++i)
      if (numbers.are_of(lists_[i].tensors)) return &lists_[i];
    return nullptr;
  }
  base::DeviceNumbers* numbers_of(const List& list) {
    for (base::DeviceNumbers& each : on_devices_)
      if (each.are_of(list.tensors)) return &each;
    return nullptr;
  }

  /// Throws on what every replay would restart or repeat.
  void check_captured_lists() {
    bool captured = false;
    for (const auto& group : this->param_groups())
      for (const at::Tensor& param : group.params())
        if (!param.device().is_cpu() && param.grad().defined()) {
          captured = captured || kernels::is_capturing(param.device());
          break;
        }
    if (!captured) return;
    check_capture();
    TORCH_CHECK(all_fused_ || (!enabled_ && Rules::kind == Kind::SGD),
                "steppe: a step is captured into a CUDA graph, but not all parameters are fused (see fused_groups()): "
                "LibTorch's own step counts on the host");
    for (size_t i = 0; i < used_; ++i)
      TORCH_CHECK(numbers_of(lists_[i]) != nullptr && !lists_[i].rule.fresh,
                  "steppe: a step is captured into a CUDA graph, but a parameter of group ", lists_[i].group,
                  " has its first gradient, or the parameters that have one differ from those of the last step; make "
                  "a step with these before");
  }

  /// Adds a parameter to one of the lists from `begin` on.
  void add(const at::Tensor& param, State* state, const kernels::UpdateRule& rule, size_t begin, size_t group) {
    if (state == nullptr && Rules::kind != Kind::SGD) state = &make_state(param, rule);
    const base::StateFields fields = state == nullptr ? base::StateFields() : Rules::fields_of(*state);
    const bool fresh =
        Rules::kind == Kind::SGD && rule.has_momentum() && (state == nullptr || !fields.kept[0]->defined());
    List& list = list_for(begin, param, fields.step == nullptr ? 0 : *fields.step + 1, fresh, rule, group);
    list.tensors.params.push_back(param);
    list.tensors.gradients.push_back(arranged(param, param.grad()));
    list.states.push_back(state);
    for (int k = 0; k < kernels::kKept; ++k) {
      if (!rule.keeps(k)) continue;
      if (!fresh) *fields.kept[k] = arranged(param, *fields.kept[k]);
      list.tensors.kept[k].push_back(fresh ? at::empty_like(param) : *fields.kept[k]);
    }
  }

  /// The tensor in the parameter's memory layout.
  static at::Tensor arranged(const at::Tensor& param, const at::Tensor& tensor) {
    return kernels::lies_like(param, tensor) ? tensor : at::empty_like(param).copy_(tensor);
  }

  List& list_for(size_t begin, const at::Tensor& param, int64_t step, bool fresh, const kernels::UpdateRule& rule,
                 size_t group) {
    for (size_t i = begin; i < used_; ++i) {
      const at::Tensor& first = lists_[i].tensors.params.front();
      if (lists_[i].step == step && lists_[i].rule.fresh == fresh && first.scalar_type() == param.scalar_type() &&
          first.device() == param.device())
        return lists_[i];
    }
    if (used_ == lists_.size()) lists_.emplace_back();
    List& list = lists_[used_++];
    list.group = group;
    list.step = step;
    list.rule = rule;
    list.rule.fresh = fresh;
    list.rule.set_step(step);
    return list;
  }

  /// Whether the step is skipped. Waits for the device.
  bool is_skipped() {
    const bool skipped = found_inf_.template item<float>() > 0.0f;
    found_inf_ = at::Tensor();
    return skipped;
  }

  /// LibTorch's own step and RMSprop's cannot be skipped by a device; a first momentum buffer would be left without
  /// values; and every list must be on the device of found_inf.
  bool device_can_skip() const {
    bool can = all_fused_ && Rules::kind != Kind::RMSprop;
    for (size_t i = 0; i < used_; ++i)
      can = can && !lists_[i].rule.fresh && lists_[i].tensors.params.front().device() == found_inf_.device();
    return can;
  }

  void step_of_others() {
    std::vector<at::Tensor> fused;
    for (size_t i = 0; i < used_; ++i)
      fused.insert(fused.end(), lists_[i].tensors.params.begin(), lists_[i].tensors.params.end());
    const base::HiddenGradients hidden(std::move(fused));
    Base::step(nullptr);
  }

  void run(List& list) {
    updater_.run(list.rule, list.tensors, numbers_for(list));
    for (size_t i = 0; i < list.states.size(); ++i) {
      if (list.rule.fresh) {
        State& state = list.states[i] != nullptr ? *list.states[i] : make_state(list.tensors.params[i], list.rule);
        *Rules::fields_of(state).kept[0] = list.tensors.kept[0][i];
      } else if (list.step > 0) {
        *Rules::fields_of(*list.states[i]).step = list.step;
      }
    }
  }

  kernels::UpdateNumbers numbers_for(const List& list) {
    const at::Tensor& first = list.tensors.params.front();
    if (!keeps_numbers_on(first.device())) return {};
    const bool captured = !first.device().is_cpu() && kernels::is_capturing(first.device());
    base::DeviceNumbers* numbers = numbers_of(list);
    if (numbers == nullptr)
      numbers = &on_devices_.emplace_back(list.tensors.params, list.group, list.step, list.rule.lr);
    numbers->set_count(list.step - 1);
    numbers->set_rate(list.rule.lr);
    kernels::UpdateNumbers begun = numbers->begin_step(found_inf_, captured);
    if (Rules::kind == Kind::RMSprop) return {};
    // Outside of a graph a double of the host is exact where a rate in float32 is not.
    if (first.scalar_type() == at::kDouble && !captured) begun.lr = at::Tensor();
    return begun;
  }

  bool enabled_ = true;
  mutable std::vector<Range> ranges_;  ///< scratch memory
  std::vector<List> lists_;
  size_t used_ = 0;  ///< lists of this step
  bool all_fused_ = true;
  std::vector<base::DeviceNumbers> on_devices_;
  at::Tensor found_inf_;
  kernels::Updater updater_;
};

namespace detail {

/// Allows options in braces.
template <class Base>
struct OptionsOf<Fused<Base>> : OptionsOf<Base> {};

}  // namespace detail
STEPPE_NAMESPACE_END
