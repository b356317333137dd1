// Means of gradients over the processes of a c10d group, computed in buckets while backward() still runs.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/MemoryOverlap.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/Event.h>
#include <c10/core/GradMode.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>
#include <c10/util/intrusive_ptr.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <steppe/distributed/collectives.hpp>
#include <steppe/distributed/world.hpp>
#include <steppe/step/gradient_exchange.hpp>
#include <steppe/step/record.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace distributed {

/// Calls back when a gradient has been added to a parameter's. (LibTorch's own class for it is not in all versions.)
class Arrival final : public torch::autograd::FunctionPostHook {
 public:
  /// `call` runs on autograd's thread.
  explicit Arrival(std::function<void()> call) : call_(std::move(call)) {}
  /// Called by autograd; returns `outputs` as they are.
  std::vector<at::Tensor> operator()(const std::vector<at::Tensor>& outputs, const std::vector<at::Tensor>&) override {
    call_();
    return outputs;
  }

 private:
  std::function<void()> call_;
};

/// A gradient as it was when it was sent; does not keep it alive.
class SentGradient {
 public:
  /// Notes a gradient as it is now; it may be undefined.
  static SentGradient of(const at::Tensor& gradient) {
    SentGradient sent;
    if (!gradient.defined()) return sent;
    sent.gradient_ = step::weak(gradient);
    sent.version_ = step::version_of(gradient);
    sent.can_tell_ = can_tell(gradient);
    return sent;
  }
  /// Whether it was neither replaced nor written to. False as well where LibTorch cannot tell.
  bool is_still(const at::Tensor& gradient) const {
    if (!can_tell_) return false;
    const at::Tensor then = step::locked(gradient_);
    return then.is_same(gradient) && step::version_of(gradient) == version_;
  }
  /// Whether LibTorch counts the gradient's changes: those of sections of one buffer are counted together, those of
  /// sparse and inference tensors partly or not.
  static bool can_tell(const at::Tensor& gradient) {
    return !gradient.defined() || (gradient.layout() == at::kStrided && !gradient.is_inference() &&
                                   gradient.storage().nbytes() == gradient.nbytes());
  }

 private:
  step::WeakTensor gradient_{c10::intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>()};
  int64_t version_ = 0;
  bool can_tell_ = true;
};

/// Means of gradients over the processes of a group.
///
///     grad(p) = sum over processes r of grad_r(p) / W;  each is divided before the sum
///
/// Gradients are sent in buckets, from the last parameter to the first, each of one dtype and device. Between begin()
/// and finish() a bucket is sent as soon as all of its gradients have arrived; finish() sends the rest, waits and
/// writes. The order is the same on all processes, and a last message of counters closes the exchange, so that no
/// process is an exchange ahead.
///
/// - What changes a gradient after it was sent (another backward(), clipping in the closure) is detected, and all
///   processes send its bucket once more. A bucket waits for as many backward() calls as there were the last time; if
///   gradients change otherwise, all are sent by finish() from then on. Gradients that are sections of a larger buffer,
///   or sparse, are always sent by finish().
/// - The means are written to the gradients that are there; a missing or sparse one is replaced. A gradient that no
///   process has stays undefined.
/// - On CPUs float16 and bfloat16 gradients are summed in float32.
///
/// Memory: one copy of the gradients.
///
/// begin() within an exchange ends that one, without a result. Where all processes have left a step by an exception,
/// they continue with the next; any other failure is permanent (Collectives). Hooks run on the threads of backward();
/// the other functions are called by one thread at a time.
class GradientMean final : public GradientExchange {
 public:
  /// `store`: where there is one, an error names the processes that are missing. `store_process`: the process that
  /// serves it.
  ///
  /// Errors: tensors that are undefined, no leaves, or listed twice; parameters that differ between processes.
  GradientMean(c10::intrusive_ptr<c10d::ProcessGroup> group, std::vector<at::Tensor> params, int64_t bucket_bytes,
               std::chrono::milliseconds timeout, const c10::intrusive_ptr<c10d::Store>& store, int store_process)
      : params_(std::move(params)), processes_(std::move(group), timeout) {
    TORCH_CHECK(bucket_bytes > 0, "steppe: bucket_bytes is ", bucket_bytes, "; it must be positive (", 5 << 20,
                " where nothing else is known)");
    for (size_t i = 0; i < params_.size(); ++i) {
      TORCH_CHECK(params_[i].defined() && params_[i].is_leaf(), "steppe: parameter ", i,
                  " is undefined or no leaf; give the parameters themselves");
      TORCH_CHECK(index_.emplace(params_[i].unsafeGetTensorImpl(), i).second, "steppe: parameter ", i,
                  " is listed twice; list it once");
    }
    fill_buckets(bucket_bytes);
    if (processes_.size() > 1) agree(store, store_process);
    TORCH_CHECK(!params_.empty(), "steppe: mean_over() was given no parameters; give those of the optimizer");
    arrivals_.assign(params_.size(), 0);
    expected_.assign(params_.size(), 1);
    if (processes_.size() > 1) listen();
  }

  ~GradientMean() override {
    for (const Listener& listener : listeners_) listener.accumulator->del_post_hook(listener.key);
  }

  /// As in GradientExchange.
  ///@{
  int64_t processes() const override { return processes_.size(); }
  int64_t process() const override { return processes_.rank(); }
  ///@}

  /// Errors: what has failed before; others that did not leave the step that this process has left.
  void begin() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    const c10::NoGradGuard no_grad;
    ready();
    if (open_) complete();
    open();
  }

  /// Errors, each naming this process: a parameter that mean_over() was not given; another process has left its step,
  /// has ended, or does not come within the time; the connection fails.
  void finish(const std::vector<at::Tensor>& params) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    const c10::NoGradGuard no_grad;
    const std::vector<size_t> wanted = find(params);
    ready();
    if (processes_.size() == 1) {
      open_ = false;
      for (const size_t i : wanted)
        if (params_[i].grad().defined() && params_[i].grad().layout() != at::kStrided)
          params_[i].mutable_grad() = params_[i].grad().to_dense();
      return;
    }
    if (!open_) open();
    const std::vector<int64_t> present = complete();
    learn();
    for (const size_t i : wanted)
      if (params_[i].grad().defined() || present[i] > 0) write(i);
    for (Bucket& bucket : buckets_) note_stream(bucket);
  }

  /// Errors: see finish().
  void sum(at::Tensor& numbers) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    ready();
    if (processes_.size() == 1) return;
    if (open_) send_rest(true);  // the order is to be the same everywhere
    processes_.sum(numbers, "the numbers of the others");
    processes_.count();
  }

  void abandon(const std::string& why) noexcept override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (processes_.size() == 1) {
      open_ = false;
      return;
    }
    if (processes_.has_failed() || left_) return;
    try {
      why_ = why.substr(0, (std::min)(why.find('\n'), size_t{500}));
    } catch (...) {  // no memory: then without
    }
    left_ = true;
    is_heard_ = false;
    processes_.leave(why_, open_);
  }

  /// How many buckets there are; how many of them the last exchange has sent before finish(), and how many twice.
  ///@{
  int64_t buckets() const { return static_cast<int64_t>(buckets_.size()); }
  int64_t sent_early() const { return sent_early_; }
  int64_t sent_twice() const { return sent_twice_; }
  ///@}

 private:
  struct Bucket {
    c10::Device device = at::kCPU;
    at::ScalarType type = at::kFloat;  ///< of its parameters
    std::vector<size_t> members;
    int64_t numel = 0;
    at::Tensor flat;
    Collectives::Work work;
    size_t missing = 0;                ///< members that have not arrived
    bool is_early = false;             ///< sent when they had
    std::vector<SentGradient> sent;    ///< if sent before finish()
    std::vector<c10::Stream> streams;  ///< on which its gradients were made, or its last means read; CPUs have none
  };
  struct Listener {
    decltype(torch::autograd::impl::grad_accumulator(std::declval<const at::Tensor&>())) accumulator;
    uintptr_t key;
  };
  static constexpr const char* kGradients = "the gradients of the others";

  void fill_buckets(int64_t bucket_bytes) {
    bucket_of_.resize(params_.size());
    place_of_.resize(params_.size());
    int64_t bytes = 0;
    for (size_t i = params_.size(); i-- > 0;) {  // gradients arrive last layer first
      const at::Tensor& param = params_[i];
      const int64_t more = static_cast<int64_t>(param.nbytes());
      if (buckets_.empty() || bytes + more > bucket_bytes || buckets_.back().device != param.device() ||
          buckets_.back().type != param.scalar_type()) {
        Bucket& made = buckets_.emplace_back();
        made.device = param.device();
        made.type = param.scalar_type();
        bytes = 0;
      }
      bytes += more;
      Bucket& bucket = buckets_.back();
      bucket_of_[i] = buckets_.size() - 1;
      place_of_[i] = bucket.numel;
      bucket.members.push_back(i);
      bucket.numel += param.numel();
    }
  }

  /// Checks that all processes hold the same parameters, and agrees on keys of the store that nothing else uses.
  void agree(const c10::intrusive_ptr<c10d::Store>& store, int store_process) {
    uint64_t layout = Fingerprint::kBasis;
    for (const Bucket& bucket : buckets_) layout = Fingerprint::add(layout, bucket.numel);
    const int64_t offered = store && processes_.rank() == 0 ? store->add("exchanges", 1) : 0;
    const int64_t id = check_same(processes_, params_, "parameters", static_cast<int64_t>(layout), offered);
    if (store && id > 0) processes_.signal_through(store, store_process, id);
  }

  void listen() {
    for (size_t i = 0; i < params_.size(); ++i) {
      if (!params_[i].requires_grad()) continue;
      auto accumulator = torch::autograd::impl::grad_accumulator(params_[i]);
      const uintptr_t key = accumulator->add_post_hook(std::make_unique<Arrival>([this, i] { arrived(i); }));
      listeners_.push_back({std::move(accumulator), key});  // the parameter holds it weakly
    }
    hears_.assign(params_.size(), false);
    for (size_t i = 0; i < params_.size(); ++i) hears_[i] = params_[i].requires_grad();
  }

  /// Begins an exchange; nothing is sent yet.
  void open() {
    open_ = true;
    next_ = 0;
    sent_early_ = 0;
    if (processes_.size() == 1) return;
    is_heard_ = sends_early_;
    std::fill(arrivals_.begin(), arrivals_.end(), 0);
    for (Bucket& bucket : buckets_) {
      bucket.is_early = false;
      bucket.missing = 0;
      for (const size_t i : bucket.members)
        if (hears_[i] && params_[i].requires_grad()) ++bucket.missing;
    }
  }

  void arrived(size_t i) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!open_ || left_ || processes_.has_failed()) return;
    ++arrivals_[i];
    if (!is_heard_) return;
    note_stream(buckets_[bucket_of_[i]]);
    if (arrivals_[i] == expected_[i] && buckets_[bucket_of_[i]].missing > 0) --buckets_[bucket_of_[i]].missing;
    try {
      const c10::NoGradGuard no_grad;
      while (next_ < buckets_.size() && buckets_[next_].missing == 0 && can_tell(buckets_[next_])) {
        pack(buckets_[next_], true);
        buckets_[next_].is_early = true;
        if (buckets_[next_].numel > 0) buckets_[next_].work = processes_.post(buckets_[next_].flat);
        ++next_;
        ++sent_early_;
      }
    } catch (const std::exception& error) {  // finish() reports it, not a thread of backward()
      is_heard_ = false;
      post_error_ = first_line(error);
    }
  }

  bool can_tell(const Bucket& bucket) const {
    return std::all_of(bucket.members.begin(), bucket.members.end(),
                       [&](size_t i) { return SentGradient::can_tell(params_[i].grad()); });
  }

  /// Copies a bucket's gradients, divided by the number of processes.
  void pack(Bucket& bucket, bool before_finish) {
    const c10::OptionalDeviceGuard guard(bucket.device);
    follow_streams(bucket);
    if (!bucket.flat.defined())
      bucket.flat = at::empty({bucket.numel},
                              at::TensorOptions().dtype(sent_type(bucket.type, bucket.device)).device(bucket.device));
    bucket.sent.clear();
    for (const size_t i : bucket.members) {
      const at::Tensor& gradient = params_[i].grad();
      if (before_finish) bucket.sent.push_back(SentGradient::of(gradient));  // before it is read
      at::Tensor part = part_of(bucket, i);
      if (!gradient.defined())
        part.zero_();
      else
        part.copy_(gradient.layout() == at::kStrided ? gradient.detach() : gradient.detach().to_dense());
    }
    bucket.flat.div_(processes_.size());
  }

  at::Tensor part_of(const Bucket& bucket, size_t i) const {
    return bucket.flat.narrow(0, place_of_[i], params_[i].numel()).view(params_[i].sizes());
  }

  bool has_changed(const Bucket& bucket) const {
    for (size_t m = 0; m < bucket.sent.size(); ++m)
      if (!bucket.sent[m].is_still(params_[bucket.members[m]].grad())) return true;
    return false;
  }

  void send(Bucket& bucket, bool before_finish) {
    pack(bucket, before_finish);
    if (bucket.numel > 0) bucket.work = processes_.start(bucket.flat, kGradients);
  }

  void send_rest(bool before_finish) {
    is_heard_ = false;
    if (!post_error_.empty())
      processes_.fail("could not send its gradients", kGradients, std::exchange(post_error_, std::string()));
    const c10::NoGradGuard no_grad;
    for (; next_ < buckets_.size(); ++next_) send(buckets_[next_], before_finish);
  }

  void wait(Bucket& bucket) {
    const Collectives::Work work = std::exchange(bucket.work, Collectives::Work());
    if (work) processes_.wait(*work, bucket.device, kGradients);
  }

  /// Completes an exchange, so that the buckets hold the means. Returns how many processes have each gradient.
  std::vector<int64_t> complete() {
    send_rest(false);
    std::vector<int64_t> counters;
    for (const at::Tensor& param : params_) counters.push_back(param.grad().defined() ? 1 : 0);
    for (const Bucket& bucket : buckets_) counters.push_back(has_changed(bucket) ? 1 : 0);
    counters.push_back(processes_.done());
    const c10::Device device = params_.front().device();
    at::Tensor told = at::empty({static_cast<int64_t>(counters.size())}, at::TensorOptions().dtype(at::kLong));
    std::copy(counters.begin(), counters.end(), told.data_ptr<int64_t>());
    told = told.to(device);
    const Collectives::Work work = processes_.start(told, kGradients);
    for (Bucket& bucket : buckets_) wait(bucket);
    processes_.wait(*work, device, kGradients);
    told = told.cpu();
    const int64_t* const total = told.data_ptr<int64_t>();
    if (total[counters.size() - 1] != processes_.size() * processes_.done())
      processes_.fail("is at another step than the others", kGradients,
                      std::to_string(processes_.done()) + " exchanges are finished");

    sent_twice_ = 0;
    is_blamed_ = false;
    for (size_t b = 0; b < buckets_.size(); ++b) {
      if (total[params_.size() + b] == 0) continue;
      if (counters[params_.size() + b] != 0)
        is_blamed_ = is_blamed_ || (buckets_[b].is_early && !arrived_again(buckets_[b]));
      send(buckets_[b], false);
      ++sent_twice_;
    }
    for (Bucket& bucket : buckets_) wait(bucket);
    open_ = false;
    processes_.count();
    return std::vector<int64_t>(total, total + params_.size());
  }

  bool arrived_again(const Bucket& bucket) const {
    return std::any_of(bucket.members.begin(), bucket.members.end(),
                       [&](size_t i) { return arrivals_[i] > expected_[i]; });
  }

  /// Decides when to send in the next exchange.
  void learn() {
    if (is_blamed_) sends_early_ = false;
    for (size_t i = 0; i < params_.size(); ++i)
      if (arrivals_[i] > 0) expected_[i] = arrivals_[i];
  }

  void write(size_t i) const {
    const at::Tensor mean = part_of(buckets_[bucket_of_[i]], i);
    const at::Tensor& param = params_[i];
    at::Tensor& gradient = param.mutable_grad();
    const bool takes = gradient.defined() && gradient.layout() == at::kStrided && !gradient.requires_grad() &&
                       !gradient.is_inference() && gradient.scalar_type() == param.scalar_type() &&
                       gradient.device() == param.device() && gradient.sizes() == param.sizes() &&
                       at::has_internal_overlap(gradient) != at::MemOverlap::Yes;
    if (!takes) gradient = at::empty_like(param.detach());
    gradient.copy_(mean);
  }

  /// The indices of `params` in this object's list.
  std::vector<size_t> find(const std::vector<at::Tensor>& params) const {
    std::vector<size_t> found;
    for (const at::Tensor& param : params) {
      const auto known = index_.find(param.unsafeGetTensorImpl());
      TORCH_CHECK(known != index_.end(), "steppe: the step has a parameter of shape ", param.sizes(),
                  " that mean_over() was not given; give it all parameters of the optimizer");
      found.push_back(known->second);
    }
    return found;
  }

  /// Before anything else: continues after a step that this process has left, if all have left it.
  void ready() {
    processes_.check();
    if (!left_) return;
    const bool any_open = processes_.join_again(why_);
    left_ = false;
    if (!open_ && any_open) open();
    if (open_) complete();
  }

  void note_stream(Bucket& bucket) {
    if (bucket.device.is_cpu()) return;
    const c10::Stream stream = c10::impl::VirtualGuardImpl(bucket.device.type()).getStream(bucket.device);
    if (std::find(bucket.streams.begin(), bucket.streams.end(), stream) == bucket.streams.end())
      bucket.streams.push_back(stream);
  }
  /// Makes the current stream wait for those streams.
  static void follow_streams(Bucket& bucket) {
    if (bucket.device.is_cpu()) return;
    const c10::Stream own = c10::impl::VirtualGuardImpl(bucket.device.type()).getStream(bucket.device);
    for (const c10::Stream& stream : bucket.streams) {
      if (stream == own) continue;
      c10::Event event(bucket.device.type());
      event.record(stream);
      event.block(own);
    }
    bucket.streams.clear();
  }

  std::vector<at::Tensor> params_;
  Collectives processes_;
  std::unordered_map<const c10::TensorImpl*, size_t> index_;
  std::vector<Bucket> buckets_;
  std::vector<size_t> bucket_of_;  // of each parameter
  std::vector<int64_t> place_of_;  // in its bucket
  std::vector<bool> hears_;        // of which parameters
  std::vector<Listener> listeners_;

  std::mutex mutex_;
  bool open_ = false;          // between begin() and finish()
  bool is_heard_ = false;      // and buckets are sent as their gradients arrive
  size_t next_ = 0;            // bucket to be sent
  std::string post_error_;     // of a bucket sent early
  std::vector<int> arrivals_;  // of this exchange
  std::vector<int> expected_;  // in an exchange
  bool sends_early_ = true;
  bool is_blamed_ = false;  // a gradient has changed otherwise than by arriving again
  int64_t sent_early_ = 0, sent_twice_ = 0;
  bool left_ = false;  // by abandon()
  std::string why_;
};

}  // namespace distributed
STEPPE_NAMESPACE_END
