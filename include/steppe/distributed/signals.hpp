// Signals that processes exchange through a store when something goes wrong.
// SPDX-License-Identifier: MIT
#pragma once

#include <c10/util/intrusive_ptr.h>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <steppe/distributed/world.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace distributed {

/// A process that left a step by an exception, and how far it was.
struct Leaver {
  int rank = 0;       ///< which one
  int64_t done = 0;   ///< exchanges that it had finished
  bool open = false;  ///< the next one had begun
  std::string why;    ///< the message of the exception
};

/// Signals beside the collectives, which work only while all processes take part: which have left, and which are alive.
/// Every function but linger() throws where the store does not answer, which is when the process that serves it has
/// ended.
///
/// While nothing is wrong only one alarm key is checked. Processes can continue after leaving a step, if all have left:
/// then a new epoch begins, with keys of its own. A failure is permanent.
class Signals {
 public:
  /// `store`: used by these processes for this purpose alone. `store_process`: the one that serves it, -1: none of
  /// them.
  Signals(c10::intrusive_ptr<c10d::Store> store, int rank, int size, int store_process)
      : store_(std::move(store)), rank_(rank), size_(size), store_process_(store_process) {}

  /// The process that serves the store; -1: none of them.
  int store_process() const { return store_process_; }

  /// This process leaves a step by an exception, after `done` exchanges; `open`: it had begun another one.
  void leave(int64_t done, bool open, const std::string& why) {
    put(*store_, left_key(rank_), std::to_string(done) + (open ? "+" : "-") + why);
    put(*store_, alarm_key(), "1");
  }
  /// Whether a process has left in this epoch, or failed.
  bool alarm() { return has(*store_, alarm_key()); }
  /// The processes that have left in this epoch, by rank.
  std::vector<Leaver> leavers() {
    std::vector<Leaver> found;
    for (int rank = 0; rank < size_; ++rank) {
      if (!has(*store_, left_key(rank))) continue;
      const std::string text = text_of(*store_, left_key(rank));
      const size_t end = text.find_first_of("+-");
      found.push_back({rank, std::stoll(text), text[end] == '+', text.substr(end + 1)});
    }
    return found;
  }
  /// All processes have left, and continue.
  void next_epoch() { ++epoch_; }

  /// Called after a failure by every process that notices it: those that answer within two seconds are alive. Returns
  /// the others.
  std::vector<int> silent() {
    put(*store_, "failing", "1");
    put(*store_, alarm_key(), "1");
    put(*store_, alive_key(rank_), "1");
    const auto start = std::chrono::steady_clock::now();
    while (true) {
      std::vector<int> missing;
      for (int rank = 0; rank < size_; ++rank)
        if (!has(*store_, alive_key(rank)) && !is_done_with(rank)) missing.push_back(rank);
      if (missing.empty() || std::chrono::steady_clock::now() - start > std::chrono::seconds(2)) return missing;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }
  /// Whether a process waits in silent().
  bool failing() { return has(*store_, "failing"); }
  /// Marks this process as failed.
  void fail() { put(*store_, dead_key(rank_), "1"); }
  /// Whether a process has called fail().
  bool any_failed() {
    for (int rank = 0; rank < size_; ++rank)
      if (has(*store_, dead_key(rank))) return true;
    return false;
  }

  /// Called before an exception that may end the process that serves the store: for up to three seconds the others,
  /// except the silent ones, can read the signals.
  void linger(const std::vector<int>& silent = {}) noexcept {
    if (rank_ != store_process_) return;
    try {
      const auto start = std::chrono::steady_clock::now();
      while (std::chrono::steady_clock::now() - start < std::chrono::seconds(3)) {
        bool all_know = true;
        for (int rank = 0; rank < size_; ++rank)
          all_know = all_know && (rank == rank_ || is_done_with(rank) ||
                                  std::find(silent.begin(), silent.end(), rank) != silent.end());
        if (all_know) return;
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
      }
    } catch (...) {  // no process can read it
    }
  }

 private:
  /// Process `rank` has left or failed.
  bool is_done_with(int rank) { return has(*store_, left_key(rank)) || has(*store_, dead_key(rank)); }

  std::string alarm_key() const { return "alarm/" + std::to_string(epoch_); }
  std::string left_key(int rank) const { return "left/" + std::to_string(epoch_) + "/" + std::to_string(rank); }
  static std::string alive_key(int rank) { return "alive/" + std::to_string(rank); }
  static std::string dead_key(int rank) { return "dead/" + std::to_string(rank); }

  c10::intrusive_ptr<c10d::Store> store_;
  int rank_, size_, store_process_;
  int64_t epoch_ = 0;
};

}  // namespace distributed
STEPPE_NAMESPACE_END
