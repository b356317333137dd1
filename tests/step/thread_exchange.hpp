// Processes as threads of one: what a step needs of an exchange, without a network.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <steppe/step/gradient_exchange.hpp>

namespace steppe {

/// Where the threads meet.
class MeetingPoint {
 public:
  explicit MeetingPoint(int64_t processes) : processes_(processes) {}
  int64_t processes() const { return processes_; }

  /// Waits for all threads; `see` is called with the things of all, in their order.
  template <class Thing, class See>
  void meet(int64_t process, const Thing& mine, See&& see) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (!failure_.empty()) throw std::runtime_error(failure_);
    if (arrived_ == 0) things_.assign(static_cast<size_t>(processes_), nullptr);
    things_[static_cast<size_t>(process)] = &mine;
    const int64_t round = round_;
    if (++arrived_ == processes_) {
      arrived_ = 0;
      ++round_;
      changed_.notify_all();
    }
    const bool came =
        changed_.wait_for(lock, std::chrono::seconds(60), [&] { return round_ != round || !failure_.empty(); });
    if (round_ == round) throw std::runtime_error(came ? failure_ : "the others did not come");
    std::vector<const Thing*> all;
    for (const void* thing : things_) all.push_back(static_cast<const Thing*>(thing));
    see(all);
    if (++left_ == processes_) {
      left_ = 0;
      changed_.notify_all();
    }
    changed_.wait(lock, [&] { return left_ == 0; });  // all are done with the things
  }

  void fail(const std::string& why) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (failure_.empty()) failure_ = why;
    changed_.notify_all();
  }

 private:
  const int64_t processes_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<const void*> things_;
  int64_t arrived_ = 0, left_ = 0, round_ = 0;
  std::string failure_;
};

class ThreadExchange : public GradientExchange {
 public:
  ThreadExchange(MeetingPoint& point, int64_t process) : point_(point), process_(process) {}

  int64_t processes() const override { return point_.processes(); }
  int64_t process() const override { return process_; }
  void begin() override { ++begun; }
  void finish(const std::vector<at::Tensor>& params) override {
    ++finished;
    const c10::NoGradGuard no_grad;
    std::vector<at::Tensor> mine, means;
    for (const at::Tensor& param : params) mine.push_back(param.grad().defined() ? param.grad().clone() : at::Tensor());
    point_.meet(process_, mine, [&](const std::vector<const std::vector<at::Tensor>*>& all) {
      for (size_t i = 0; i < params.size(); ++i) {
        at::Tensor mean;
        for (const std::vector<at::Tensor>* each : all) {
          if (!(*each)[i].defined()) continue;
          const at::Tensor share = (*each)[i] / static_cast<double>(processes());
          mean = mean.defined() ? mean + share : share;
        }
        means.push_back(mean);
      }
    });
    for (size_t i = 0; i < params.size(); ++i) params[i].mutable_grad() = means[i];
  }
  void sum(at::Tensor& numbers) override {
    ++summed;
    const at::Tensor mine = numbers.clone();
    at::Tensor total = at::zeros_like(numbers);
    point_.meet(process_, mine, [&](const std::vector<const at::Tensor*>& all) {
      for (const at::Tensor* each : all) total += *each;
    });
    numbers.copy_(total);
  }
  void abandon(const std::string& why) noexcept override {
    abandoned = why;
    point_.fail("process " + std::to_string(process_) + " left its step: " + why);
  }

  int64_t begun = 0, finished = 0, summed = 0;
  std::string abandoned;

 private:
  MeetingPoint& point_;
  const int64_t process_;
};

/// Calls body(exchange, process) on as many threads. What one of them throws comes out, the lowest process first.
inline std::vector<std::string> run_processes(
    int64_t processes, const std::function<void(const std::shared_ptr<ThreadExchange>&, int64_t)>& body) {
  MeetingPoint point(processes);
  std::vector<std::string> errors(static_cast<size_t>(processes));
  std::vector<std::thread> threads;
  for (int64_t r = 0; r < processes; ++r)
    threads.emplace_back([&, r] {
      try {
        body(std::make_shared<ThreadExchange>(point, r), r);
      } catch (const std::exception& error) {
        errors[static_cast<size_t>(r)] = error.what();
      }
    });
  for (std::thread& thread : threads) thread.join();
  return errors;
}

}  // namespace steppe
