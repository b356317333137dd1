// Sums over processes that end in an error, not in a hang, where one of them is missing.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/view_as_real.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>
#include <c10/util/intrusive_ptr.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <steppe/distributed/signals.hpp>
#include <steppe/distributed/world.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace distributed {

/// The dtype in which a tensor is summed. On CPUs 16-bit tensors are sent as float32: LibTorch 1.13's Gloo ends the
/// process on bfloat16, and the sum is more exact.
inline at::ScalarType sent_type(at::ScalarType type, c10::Device device) {
  return device.is_cpu() && (type == at::kHalf || type == at::kBFloat16) ? at::kFloat : type;
}

/// One process group in use: its processes, how long they are waited for, and whether it has failed.
///
/// Every wait is bounded. It ends early where another process reports through the store that it has left. A failure is
/// permanent, since the processes no longer agree on what they exchange: every later call throws the same error. Calls
/// come in the same order on all processes, and from one thread at a time.
class Collectives {
 public:
  /// An operation of the group that is under way.
  using Work = c10::intrusive_ptr<c10d::Work>;

  /// Errors: no group; a time that is not positive.
  Collectives(c10::intrusive_ptr<c10d::ProcessGroup> group, std::chrono::milliseconds timeout)
      : group_(std::move(group)), timeout_(timeout) {
    TORCH_CHECK(group_, "steppe: the process group is null; make one, e.g. with steppe::distributed::gloo(world)");
    TORCH_CHECK(timeout_.count() > 0, "steppe: the timeout for other processes is ", timeout_.count(),
                " ms; it must be positive");
    rank_ = group_->getRank();
    size_ = group_->getSize();
  }

  /// Which process of the group this is, and their number.
  ///@{
  int rank() const { return rank_; }
  int size() const { return size_; }
  ///@}

  /// `id`: a number of this use of the store, the same on all processes and different from that of any other use.
  void signal_through(const c10::intrusive_ptr<c10d::Store>& store, int store_process, int64_t id) {
    signals_.emplace(c10::make_intrusive<c10d::PrefixStore>("exchange/" + std::to_string(id), store), rank_, size_,
                     store_process);
  }

  /// Starts a sum over the processes, in place. Throws what the group throws.
  Work post(const at::Tensor& numbers) {
    std::vector<at::Tensor> list = {numbers.is_complex() ? at::view_as_real(numbers) : numbers};
    return group_->allreduce(list);
  }

  /// `what`: what is waited for, such as "the gradients of the others".
  void wait(c10d::Work& work, c10::Device device, const std::string& what) {
    const auto start = std::chrono::steady_clock::now();
    std::chrono::milliseconds slice(50);
    bool lost_store = false;
    while (true) {
      try {
        if (is_done(work, device, slice)) return;
      } catch (const std::exception& error) {
        fail("lost the connection to the others while it waited for " + what, what, first_line(error));
      }
      if (lost_store) fail("waited for " + what, what, "");
      const auto waited =
          std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - start);
      if (waited >= timeout_) fail("timed out after " + in_words(timeout_) + " while it waited for " + what, what, "");
      slice = (std::min)({2 * slice, std::chrono::milliseconds(1000), timeout_ - waited});
      if (!signals_) continue;
      bool is_hopeless = false;
      try {
        is_hopeless = signals_->alarm() && (!left_before(done_).empty() || signals_->failing());
      } catch (const std::exception&) {
        lost_store = true;  // its process may have ended with all its work done, the rest of which still arrives
      }
      if (is_hopeless) fail("waited for " + what, what, "");
    }
  }

  /// The sum over the processes, in place.
  void sum(at::Tensor& numbers, const std::string& what) {
    check();
    if (size_ == 1 || numbers.numel() == 0) return;
    const c10::NoGradGuard no_grad;
    const at::ScalarType type = sent_type(numbers.scalar_type(), numbers.device());
    const bool is_sent_itself = type == numbers.scalar_type() && numbers.is_contiguous();
    at::Tensor sent = is_sent_itself ? numbers.detach() : numbers.detach().to(type).contiguous();
    wait(*start(sent, what), sent.device(), what);
    if (!is_sent_itself) numbers.copy_(sent);
  }

  /// The same as post(), with errors of fail().
  Work start(const at::Tensor& numbers, const std::string& what) {
    try {
      return post(numbers);
    } catch (const std::exception& error) {
      fail("could not send its part to the others", what, first_line(error));
    }
  }

  /// Makes process 0's bytes those of all processes, in place. `what`: as in wait().
  void broadcast_from_first(at::Tensor& bytes, const std::string& what) {
    check();
    std::vector<at::Tensor> list = {bytes};
    Work work;
    try {
      work = group_->broadcast(list);
    } catch (const std::exception& error) {
      fail("could not reach the others", what, first_line(error));
    }
    wait(*work, bytes.device(), what);
  }

  /// The numbers of all processes: row r is what process r has given. All give the same number of them.
  std::vector<std::vector<int64_t>> rows(const std::vector<int64_t>& mine, c10::Device device,
                                         const std::string& what) {
    const int64_t columns = static_cast<int64_t>(mine.size());
    at::Tensor table = at::zeros({size_, columns}, at::TensorOptions().dtype(at::kLong));
    std::copy(mine.begin(), mine.end(), table.data_ptr<int64_t>() + rank_ * columns);
    at::Tensor sent = table.to(device);
    sum(sent, what);
    table = sent.cpu();
    std::vector<std::vector<int64_t>> found;
    for (int64_t row = 0; row < size_; ++row) {
      const int64_t* const numbers = table.data_ptr<int64_t>() + row * columns;
      found.emplace_back(numbers, numbers + columns);
    }
    return found;
  }

  /// Throws the error of an earlier failure, if there was one.
  void check() const { TORCH_CHECK(failure_.empty(), failure_); }
  /// Whether a call has failed before.
  bool has_failed() const { return !failure_.empty(); }

  /// The number of exchanges that this process has finished, by which processes that leave and processes that wait
  /// compare their progress.
  ///@{
  void count() { ++done_; }
  int64_t done() const { return done_; }
  ///@}

  /// This process leaves a step by an exception. `open`: an exchange has begun. The others are informed, if possible.
  void leave(const std::string& why, bool open) noexcept {
    if (has_failed() || !signals_) return;
    try {
      signals_->leave(done_, open, why);
      signals_->linger();
    } catch (...) {  // the store is gone; the others notice as well
    }
  }

  /// After leave(): waits until all processes have left at the same place, so that they can continue together. Returns
  /// whether any of them had begun an exchange. Throws if they cannot continue.
  bool join_again(const std::string& why) {
    check();
    if (!signals_)
      give_up("steppe: process " + std::to_string(rank_) + " has left a step (" + why +
              "), and cannot know whether the others have. Give mean_over() the World: where all have left a step they "
              "can continue");
    const auto start = std::chrono::steady_clock::now();
    std::vector<Leaver> leavers;
    while (true) {
      bool is_hopeless = false, lost_store = false;
      try {
        leavers = signals_->leavers();
        is_hopeless = signals_->any_failed();
      } catch (const std::exception&) {
        lost_store = true;
      }
      if (lost_store) fail_alone("but the process that serves their store has ended", why);
      if (is_hopeless) fail_alone("which they did not", why);
      if (static_cast<int>(leavers.size()) == size_) break;
      if (std::chrono::steady_clock::now() - start > timeout_)
        fail_alone("which they did not within " + in_words(timeout_), why);
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    bool any_open = false;
    for (const Leaver& leaver : leavers) {
      if (leaver.done != leavers.front().done) fail_alone("which they did, but at another place", why);
      any_open = any_open || leaver.open;
    }
    signals_->next_epoch();
    return any_open;
  }

  /// `event`: what has happened to this process; `what`: what it has waited for; `cause`: the group's own message.
  [[noreturn]] void fail(const std::string& event, const std::string& what, const std::string& cause) {
    const std::string me = "steppe: process " + std::to_string(rank_) + " ";
    std::string text = me + event + (cause.empty() ? "" : " (" + cause + ")");
    constexpr const char* kCure = ". Look at its output, and start all processes again from the last checkpoint";
    if (!signals_) {
      text +=
          "; one of them has ended, or hangs. Look at their output; mean_over() can name it if it is given the World";
    } else {
      try {
        std::vector<Leaver> left = left_before(done_ + 1);
        const std::vector<int> silent = left.empty() ? signals_->silent() : std::vector<int>();
        if (left.empty()) left = left_before(done_ + 1);
        if (!left.empty()) {
          text = me + "waited for " + what + ", but process " + std::to_string(left.front().rank) +
                 " left its step: " + left.front().why;
        } else if (!silent.empty()) {
          text += std::string("; there is no response from process ") + list_of(silent) +
                  ": killed, hanging, or busy with something that takes longer than the timeout" + kCure;
        } else {
          text +=
              "; all processes are alive, but wait for different things, or the network between them fails. All must "
              "make the same steps, and world() needs a timeout longer than the slowest of them. Start all processes "
              "again from the last checkpoint";
        }
        signals_->fail();
        signals_->linger(silent);
      } catch (const std::exception&) {
        text += signals_->store_process() < 0
                    ? "; the store of the processes does not answer either: torchrun's agent has ended"
                    : "; process " + std::to_string(signals_->store_process()) +
                          ", which serves the store, does not answer either: it has ended" + kCure;
      }
    }
    give_up(text);
  }

 private:
  /// True when it is done, after which the tensor may be used; false when `slice` is over.
  static bool is_done(c10d::Work& work, c10::Device device, std::chrono::milliseconds slice) {
    if (device.is_cpu()) {
      try {
        if (work.wait((std::max)(slice, std::chrono::milliseconds(1)))) return true;
      } catch (const std::exception&) {
        if (!work.isCompleted()) return false;
      }
    } else {  // NCCL's wait() with a time limit would end the communicator
      const auto start = std::chrono::steady_clock::now();
      for (std::chrono::microseconds pause(10); !work.isCompleted(); pause = (std::min)(2 * pause, kLongestPause)) {
        if (std::chrono::steady_clock::now() - start > slice) return false;
        std::this_thread::sleep_for(pause);
      }
    }
    TORCH_CHECK(work.wait(), "it was aborted");
    return true;
  }
  static constexpr std::chrono::microseconds kLongestPause{500};

  std::vector<Leaver> left_before(int64_t place) {
    std::vector<Leaver> found;
    for (Leaver& leaver : signals_->leavers())
      if (leaver.rank != rank_ && leaver.done <= place) found.push_back(std::move(leaver));
    return found;
  }

  [[noreturn]] void fail_alone(const std::string& others, const std::string& why) {
    try {
      signals_->fail();
      signals_->linger();
    } catch (...) {  // the store is gone; the others notice as well
    }
    give_up("steppe: process " + std::to_string(rank_) + " has left a step (" + why +
            ") and could continue only if the others had left it, too, " + others +
            ". Start all processes again from the last checkpoint");
  }

  [[noreturn]] void give_up(const std::string& why) {
    failure_ = why;
    C10_THROW_ERROR(Error, failure_);
  }

  c10::intrusive_ptr<c10d::ProcessGroup> group_;
  std::chrono::milliseconds timeout_;
  int rank_ = 0, size_ = 1;
  std::optional<Signals> signals_;
  int64_t done_ = 0;
  std::string failure_;
};

/// A hash that is the same on all processes that hold the same model.
struct Fingerprint {
  static constexpr uint64_t kBasis = 0xcbf29ce484222325U;  ///< the hash of nothing, FNV-1a's

  /// The hash after the eight bytes of another number.
  static uint64_t add(uint64_t hash, int64_t number) {
    for (int byte = 0; byte < 8; ++byte)
      hash = (hash ^ ((static_cast<uint64_t>(number) >> (8 * byte)) & 0xffU)) * 0x100000001b3U;
    return hash;
  }
  /// The hash of a tensor's dtype and shape.
  static int64_t of(const at::Tensor& tensor) {
    uint64_t hash = add(kBasis, static_cast<int64_t>(tensor.scalar_type()));
    for (const int64_t length : tensor.sizes()) hash = add(hash, length);
    return static_cast<int64_t>(hash);
  }
};

/// Errors, on all processes: their lists differ in number, shapes or dtypes, or `layout` does. `which`: "parameters".
/// Returns the sum of `offered`.
inline int64_t check_same(Collectives& processes, const std::vector<at::Tensor>& tensors, const std::string& which,
                          int64_t layout = 0, int64_t offered = 0) {
  const std::string what = "the description of the others' " + which;
  std::vector<int64_t> each;
  int64_t numbers = 0;
  uint64_t hash = Fingerprint::kBasis;
  for (const at::Tensor& tensor : tensors) {
    each.push_back(Fingerprint::of(tensor));
    hash = Fingerprint::add(hash, each.back());
    numbers += tensor.numel();
  }
  const int64_t count = static_cast<int64_t>(tensors.size());
  const c10::Device device = tensors.empty() ? c10::Device(at::kCPU) : tensors.front().device();
  const auto rows = processes.rows({count, numbers, static_cast<int64_t>(hash), layout, offered}, device, what);
  int64_t sum = 0, common = count;
  bool same_list = true, same_layout = true;
  size_t other = 0;  // one that differs from the first
  for (size_t r = 0; r < rows.size(); ++r) {
    sum += rows[r][4];
    common = (std::min)(common, rows[r][0]);
    same_layout = same_layout && rows[r][3] == rows[0][3];
    if (same_list && (rows[r][0] != rows[0][0] || rows[r][2] != rows[0][2])) {
      same_list = false;
      other = r;
    }
  }
  if (!same_list) {
    std::string detail;
    each.resize(static_cast<size_t>(common));
    if (common > 0) {
      const auto of_each = processes.rows(each, device, what);
      size_t i = 0;
      while (i < each.size() && of_each[other][i] == of_each[0][i]) ++i;
      if (i < each.size())
        detail = c10::str(" The first that differs is number ", i, ", which is here ",
                          c10::toString(tensors[i].scalar_type()), " of shape ", tensors[i].sizes(), ".");
    }
    TORCH_CHECK(false, "steppe: the processes hold different ", which, ": process 0 has ", rows[0][0], " with ",
                rows[0][1], " numbers, process ", other, " has ", rows[other][0], " with ", rows[other][1], ".", detail,
                " Build the same model on all of them, and give its ", which, " in the same order");
  }
  TORCH_CHECK(
      same_layout, "steppe: the processes put the same ", which,
      " into different buckets; give the same bucket_bytes on all of them, and spread the model alike over their "
      "devices");
  return sum;
}

}  // namespace distributed
STEPPE_NAMESPACE_END
