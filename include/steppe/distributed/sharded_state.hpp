// A base optimizer whose state is divided among the processes.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>
#include <c10/util/intrusive_ptr.h>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/optimizer.h>
#include <torch/optim/rmsprop.h>
#include <torch/optim/sgd.h>
#include <torch/serialize/archive.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include <steppe/base/hidden_gradients.hpp>
#include <steppe/base/rules.hpp>
#include <steppe/base/state.hpp>
#include <steppe/base/traits.hpp>
#include <steppe/distributed/collectives.hpp>
#include <steppe/distributed/world.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace distributed {
namespace detail {

/// What a base keeps of each parameter; void where it cannot be divided.
template <class Base>
using StateOf =
    std::conditional_t<std::is_base_of_v<torch::optim::Adagrad, Base>, void, typename steppe::base::Rules<Base>::State>;

/// Copies each tensor from its owner to all others, in place and bit for bit: any dtype, contiguous or not.
class SentByOwners {
 public:
  SentByOwners(c10d::ProcessGroup& group, Collectives& processes, std::string what)
      : group_(group), processes_(processes), what_(std::move(what)) {}

  void add(const at::Tensor& tensor, int owner) {
    if (tensor.numel() == 0) return;
    std::vector<Message>& messages = messages_[owner];
    if (messages.empty() || messages.back().bytes >= kBytes ||
        messages.back().tensors.front().device() != tensor.device())
      messages.emplace_back();
    Message& message = messages.back();
    message.tensors.push_back(tensor.detach());
    message.bytes += space_of(tensor);
  }

  /// All owners send at the same time, one message of each.
  void send() {
    processes_.check();
    const c10::NoGradGuard no_grad;
    bool any = true;
    for (size_t round = 0; any; ++round) {
      any = false;
      std::vector<Sent> all;
      for (int owner = 0; owner < processes_.size(); ++owner) {
        const auto found = messages_.find(owner);
        if (found == messages_.end() || round >= found->second.size()) continue;
        all.push_back(start(found->second[round], owner));
        any = true;
      }
      for (Sent& each : all) finish(each);
    }
  }

 private:
  static constexpr int64_t kBytes = 25 << 20;
  static constexpr int64_t kAlignment = 16;

  struct Message {
    std::vector<at::Tensor> tensors;
    int64_t bytes = 0;
  };
  struct Sent {
    const Message* message;
    bool is_ours;
    at::Tensor bytes;
    Collectives::Work work;
  };

  static int64_t space_of(const at::Tensor& tensor) {
    const auto bytes = static_cast<int64_t>(tensor.nbytes());
    return (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }

  /// Each of a message's tensors with its place there.
  template <class Visit>
  static void for_each(const Sent& sent, const Visit& visit) {
    int64_t at = 0;
    for (const at::Tensor& tensor : sent.message->tensors) {
      const at::Tensor bytes = sent.bytes.narrow(0, at, static_cast<int64_t>(tensor.nbytes()));
      visit(tensor, bytes.view(tensor.scalar_type()).view(tensor.sizes()));
      at += space_of(tensor);
    }
  }

  Sent start(const Message& message, int owner) {
    const at::Tensor bytes =
        at::zeros({message.bytes}, at::TensorOptions().dtype(at::kByte).device(message.tensors.front().device()));
    Sent sent{&message, owner == processes_.rank(), bytes, {}};
    if (sent.is_ours) for_each(sent, [](const at::Tensor& tensor, const at::Tensor& place) { place.copy_(tensor); });
    c10d::BroadcastOptions from;
    from.rootRank = owner;
    std::vector<at::Tensor> list = {bytes};
    try {
      sent.work = group_.broadcast(list, from);
    } catch (const std::exception& error) {
      processes_.fail("could not reach the others", what_, first_line(error));
    }
    return sent;
  }

  void finish(Sent& sent) {
    processes_.wait(*sent.work, sent.bytes.device(), what_);
    if (!sent.is_ours) for_each(sent, [](const at::Tensor& tensor, const at::Tensor& place) { tensor.copy_(place); });
  }

  c10d::ProcessGroup& group_;
  Collectives& processes_;
  std::string what_;
  std::unordered_map<int, std::vector<Message>> messages_;
};

}  // namespace detail

/// An optimizer that keeps the state (momentum, second moments) of a part of the parameters, makes their step, and gets
/// the weights of all others from the processes that own them (ZeRO stage 1, arXiv 1910.02054). Over SGD, Adam, AdamW
/// and RMSprop, by itself or as the Base of a sharpness-aware optimizer.
///
///     using Base = steppe::distributed::ShardedState<torch::optim::AdamW>;
///     steppe::SAM<Base> sam(*model, torch::optim::AdamWOptions(1e-3));
///     sam.exchange(steppe::distributed::mean_over(world, group, model->parameters()));
///     sam.shard_state(group, world.timeout);
///
/// The weights are bit for bit those of a run in which every process keeps everything, as long as the gradients are the
/// same on all processes, which the program has to ensure. Gradients are left as they are. Before shard_state() it
/// works as its Base.
///
/// Every parameter is owned whole, by one process: the largest first, each by the process that owns least. Memory: the
/// state of what is owned, about one part in W; in a step up to 25 MiB (or the largest parameter) for each process.
///
/// step(), save() and shard_state() are to be called by all processes, at the same place. MSAM, which reads the
/// momentum of all parameters, cannot be used over it.
template <class Base>
class ShardedState : public Base {
  using State = detail::StateOf<Base>;
  static_assert(!std::is_void_v<State>,
                "steppe: ShardedState supports torch::optim::SGD, Adam, AdamW and RMSprop. LBFGS keeps one vector of "
                "all parameters, and Adagrad has made its whole state before it could be divided");

 public:
  using Base::Base;
  using typename torch::optim::Optimizer::LossClosure;
  /// Methods that ask the base for state of every parameter refuse this one.
  static constexpr bool divides_state = true;
  /// The optimizer that checkpoints name: they fit all.
  using CheckpointBase = typename steppe::detail::CheckpointBase<Base>::Type;

  /// Divides the parameters among the processes of `group`. Existing state (after load(), or after steps without it) is
  /// kept for owned parameters. Parameters that are added later are divided at the next step.
  ///
  /// `timeout`: how long the others are waited for. Errors: other parameters on other processes, a second call.
  void shard_state(c10::intrusive_ptr<c10d::ProcessGroup> group,
                   std::chrono::milliseconds timeout = std::chrono::minutes(5)) {
    TORCH_CHECK(!processes_,
                "steppe: shard_state() was called twice: what others own has no state here any more. Save the "
                "optimizer, make a new one, load it, and shard that");
    auto processes = std::make_shared<Collectives>(group, timeout);
    check_same(*processes, all_params(), "parameters");
    group_ = std::move(group);
    processes_ = std::move(processes);
    owned_bytes_.assign(static_cast<size_t>(processes_->size()), 0);
    divide();
    forget_others();
  }

  /// Whether shard_state() was called.
  bool is_sharded() const { return processes_ != nullptr; }
  /// Whether this process keeps the parameter's state and makes its step.
  bool owns(const at::Tensor& param) const { return !processes_ || owner_of(param) == processes_->rank(); }

  /// Calls the closure, as Base does; then updates the owned parameters; then sends all weights from their owners.
  ///
  /// Errors: a process that is missing, see Collectives; those of Base.
  at::Tensor step(LossClosure closure = nullptr) override {
    if (!processes_) return Base::step(std::move(closure));
    at::Tensor loss;
    if (closure) {
      const c10::AutoGradMode with_gradients(true);
      loss = closure();
    }
    divide();
    const std::vector<at::Tensor> params = all_params();
    {
      std::vector<at::Tensor> others;
      for (const at::Tensor& param : params)
        if (!owns(param)) others.push_back(param);
      const base::HiddenGradients hidden(std::move(others));
      Base::step(nullptr);
    }
    detail::SentByOwners weights(*group_, *processes_, "the weights of the others");
    for (const at::Tensor& param : params) weights.add(param, owner_of(param));
    if (processes_->size() > 1) weights.send();
    return loss;
  }

  /// Gathers the state of all parameters and writes what Base writes: it can be loaded by any number of processes, and
  /// by Base. All processes call this; one of them is enough to write a file:
  ///
  ///     std::ostringstream nowhere;
  ///     world.rank == 0 ? torch::save(optimizer, "optimizer.pt") : torch::save(optimizer, nowhere);
  ///
  /// Memory meanwhile: the whole state, on every process.
  void save(torch::serialize::OutputArchive& archive) const override {
    if (!processes_ || processes_->size() == 1) return Base::save(archive);
    // LibTorch writes what state() holds. After this call that is the same again.
    auto& self = const_cast<ShardedState&>(*this);
    self.divide();
    const OthersForgotten at_the_end(self);
    if constexpr (steppe::detail::CountsOnDevices<Base>::value) self.synchronize_counts();
    self.gather();
    Base::save(archive);
  }

  /// Reads what save() or Base has written; keeps the state of owned parameters. Errors: those of Base.
  void load(torch::serialize::InputArchive& archive) override {
    if (processes_) divide();
    const OthersForgotten at_the_end(*this);
    Base::load(archive);
  }

 private:
  struct Owner {
    at::Tensor param;  ///< held, so that no other tensor gets its address
    int process = 0;
  };

  struct OthersForgotten {
    explicit OthersForgotten(ShardedState& all) : optimizer(all) {}
    OthersForgotten(const OthersForgotten&) = delete;
    OthersForgotten& operator=(const OthersForgotten&) = delete;
    ~OthersForgotten() { optimizer.forget_others(); }
    ShardedState& optimizer;
  };

  std::vector<at::Tensor> all_params() const {
    std::vector<at::Tensor> all;
    for (const auto& group : this->param_groups()) all.insert(all.end(), group.params().begin(), group.params().end());
    return all;
  }

  int owner_of(const at::Tensor& param) const {
    const auto found = owners_.find(param.unsafeGetTensorImpl());
    TORCH_CHECK(found != owners_.end(), "steppe: a parameter of shape ", param.sizes(),
                " belongs to no process yet: it is new, and is given one at the next step");
    return found->second.process;
  }

  /// Assigns an owner to each parameter that has none. All processes get the same result, from the sizes alone.
  void divide() {
    std::vector<at::Tensor> fresh;
    for (const at::Tensor& param : all_params())
      if (owners_.count(param.unsafeGetTensorImpl()) == 0) fresh.push_back(param);
    const auto bytes_of = [](const at::Tensor& param) {
      return param.numel() * static_cast<int64_t>(param.element_size());
    };
    // Not stable_sort: with libstdc++ 12, clang 19 warns of a deprecated function inside it.
    std::vector<size_t> order(fresh.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
      const int64_t of_a = bytes_of(fresh[a]), of_b = bytes_of(fresh[b]);
      return of_a != of_b ? of_a > of_b : a < b;
    });
    for (const size_t i : order) {
      const at::Tensor& param = fresh[i];
      const auto least = std::min_element(owned_bytes_.begin(), owned_bytes_.end());
      *least += bytes_of(param);
      owners_[param.unsafeGetTensorImpl()] = {param, static_cast<int>(least - owned_bytes_.begin())};
    }
  }

  void forget_others() {
    if (!processes_) return;
    for (const auto& item : owners_)
      if (item.second.process != processes_->rank()) this->state().erase(base::state_key(item.second.param));
  }

  /// Fills state() with the state of parameters that others own.
  void gather() {
    const std::vector<at::Tensor> params = all_params();
    if (params.empty()) return;
    base::States& states = this->state();
    // Of each parameter: whether it has a state, its count of steps, and for each tensor 1 + its dtype, or 0.
    constexpr int64_t columns = 2 + kernels::kKept;
    at::Tensor table = at::zeros({static_cast<int64_t>(params.size()), columns}, at::kLong);
    for (size_t i = 0; i < params.size(); ++i) {
      const auto found = states.find(base::state_key(params[i]));
      if (!owns(params[i]) || found == states.end()) continue;
      const base::StateFields fields = base::Rules<Base>::fields_of(static_cast<State&>(*found->second));
      int64_t* const row = table.data_ptr<int64_t>() + static_cast<int64_t>(i) * columns;
      row[0] = 1;
      row[1] = fields.step == nullptr ? 0 : *fields.step;
      for (int k = 0; k < kernels::kKept; ++k) {
        if (fields.kept[k] == nullptr || !fields.kept[k]->defined()) continue;
        const at::Tensor& tensor = *fields.kept[k];
        const bool fits = tensor.layout() == at::kStrided && tensor.sizes() == params[i].sizes();
        row[2 + k] = fits ? 1 + static_cast<int64_t>(tensor.scalar_type()) : kOfAnotherShape;
      }
    }
    at::Tensor sum = table.to(params.front().device());
    processes_->sum(sum, "what state the others have");
    table = sum.cpu();

    detail::SentByOwners tensors(*group_, *processes_, "the optimizer state of the others");
    for (size_t i = 0; i < params.size(); ++i) {
      const int64_t* const row = table.data_ptr<int64_t>() + static_cast<int64_t>(i) * columns;
      if (row[0] == 0) continue;
      auto& state = states[base::state_key(params[i])];
      if (!owns(params[i])) state = std::make_unique<State>();
      const base::StateFields fields = base::Rules<Base>::fields_of(static_cast<State&>(*state));
      if (fields.step != nullptr) *fields.step = row[1];
      for (int k = 0; k < kernels::kKept; ++k) {
        TORCH_CHECK(row[2 + k] != kOfAnotherShape, "steppe: the optimizer's state of parameter ", i,
                    " does not have its shape ", params[i].sizes(), "; was another model's checkpoint loaded?");
        if (row[2 + k] == 0) continue;
        at::Tensor& tensor = *fields.kept[k];
        if (!owns(params[i]))
          tensor = at::empty_like(params[i].detach(),
                                  params[i].options().dtype(static_cast<at::ScalarType>(row[2 + k] - 1)));
        tensors.add(tensor, owner_of(params[i]));
      }
    }
    tensors.send();
  }

  static constexpr int64_t kOfAnotherShape = -1;

  c10::intrusive_ptr<c10d::ProcessGroup> group_;
  std::shared_ptr<Collectives> processes_;  ///< null until shard_state()
  std::unordered_map<const c10::TensorImpl*, Owner> owners_;
  std::vector<int64_t> owned_bytes_;  ///< by each process
};

}  // namespace distributed

namespace detail {

/// Allows options in braces.
template <class Base>
struct OptionsOf<distributed::ShardedState<Base>> : OptionsOf<Base> {};

}  // namespace detail
STEPPE_NAMESPACE_END
