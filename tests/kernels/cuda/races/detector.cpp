// Judges every access of a launch by what its threads know of one another.
// SPDX-License-Identifier: MIT
#include "detector.hpp"

#include <algorithm>
#include <optional>
#include <set>
#include <vector>

#include "fibers.hpp"
#include "history.hpp"
#include "order.hpp"
#include "race_list.hpp"

namespace steppe::races {
namespace {

/// On while a kernel's code runs. What the detector and the tests do themselves is not looked at.
bool hooks_are_on = false;

class HooksOff {
 public:
  HooksOff() { hooks_are_on = false; }
  ~HooksOff() { hooks_are_on = true; }
  HooksOff(const HooksOff&) = delete;
  HooksOff& operator=(const HooksOff&) = delete;
};

/// Threads that wait for one another.
struct Group {
  size_t first, count, arrived;
};

class Detector {
 public:
  void run(const Launch& launch, const std::function<void(int, int)>& body) {
    launch_ = launch;
    threads_ = static_cast<size_t>(launch.threads);
    const size_t count = static_cast<size_t>(launch.blocks) * threads_;
    blocks_.clear();
    warps_.clear();
    for (size_t block = 0; block < count; block += threads_) {
      blocks_.push_back({block, threads_, 0});
      for (size_t warp = 0; warp < threads_; warp += kWarp)
        warps_.push_back({block + warp, std::min(kWarp, threads_ - warp), 0});
    }
    given_.assign(count, 0.0);
    order_.begin(count);
    ++totals_.launches;
    kernels_.insert(launch.kernel);
    fibers_.run(count, launch.seed, [&](size_t thread) {
      hooks_are_on = true;
      body(static_cast<int>(thread / threads_), static_cast<int>(thread % threads_));
      hooks_are_on = false;
    });
  }

  void access(const void* memory, size_t bytes, Kind kind, const void* place) {
    const auto address = reinterpret_cast<uintptr_t>(memory);
    if (fibers_.have_on_stacks(address)) return;  // a thread's own
    fibers_.pause();
    ++totals_.accesses;
    const size_t thread = fibers_.current();
    const Clock& known = order_.known_by(thread);
    const Access mine{known[thread], static_cast<uint32_t>(thread),
                      static_cast<uint32_t>(reinterpret_cast<uintptr_t>(place))};
    std::optional<Conflict> conflict;
    for (uintptr_t at = address; at < address + bytes; ++at) {
      const std::optional<Conflict> found = history_.enter(at, kind, mine, known);
      if (!conflict) conflict = found;
      if (kind == Kind::Write) order_.overwrite(at);
    }
    if (!conflict) return;
    ++totals_.races;
    races_.add({launch_, kind, mine, *conflict, 1});
  }

  template <class Count>
  Count add(Count* to, Count value, const void* place) {
    access(to, sizeof(Count), Kind::Atomic, place);
    order_.atomic(fibers_.current(), reinterpret_cast<uintptr_t>(to));
    const Count before = *to;
    *to = before + value;
    return before;
  }

  void fence() { order_.fence(fibers_.current()); }
  void wait_for_block() { wait(blocks_[fibers_.current() / threads_], /*orders=*/true); }
  void wait_for_warp() { wait(warp(), /*orders=*/true); }

  double exchange_in_warp(double given, int from) {
    const size_t thread = fibers_.current(), first = thread / threads_ * threads_;
    given_[thread] = given;
    // By CUDA's documentation shuffles do not order accesses to memory.
    wait(warp(), /*orders=*/false);
    const double taken = given_[first + static_cast<size_t>(from)];
    wait(warp(), /*orders=*/false);
    return taken;
  }

  Totals totals() const {
    Totals totals = totals_;
    totals.switches = fibers_.switches();
    return totals;
  }
  const std::set<std::string>& kernels() const { return kernels_; }

  RaceList& races() { return races_; }

 private:
  static constexpr size_t kWarp = 32;

  Group& warp() {
    const size_t thread = fibers_.current(), warps = (threads_ + kWarp - 1) / kWarp;
    return warps_[thread / threads_ * warps + thread % threads_ / kWarp];
  }

  void wait(Group& group, bool orders) {
    if (++group.arrived < group.count) return fibers_.sleep();
    group.arrived = 0;
    if (orders) order_.meet(group.first, group.count);
    for (size_t i = group.first; i < group.first + group.count; ++i) fibers_.wake(i);
    fibers_.pause();
  }

  Launch launch_;
  size_t threads_ = 0;
  std::vector<Group> blocks_, warps_;
  std::vector<double> given_;  ///< in shuffles
  Fibers fibers_;
  Order order_;
  History history_;
  Totals totals_;
  std::set<std::string> kernels_;
  RaceList races_;
};

Detector detector;

}  // namespace

void run(const Launch& launch, const std::function<void(int, int)>& body) { detector.run(launch, body); }

void wait_for_block() {
  const HooksOff off;
  detector.wait_for_block();
}
void wait_for_warp() {
  const HooksOff off;
  detector.wait_for_warp();
}
double exchange_in_warp(double given, int from) {
  const HooksOff off;
  return detector.exchange_in_warp(given, from);
}
void fence() {
  const HooksOff off;
  detector.fence();
}
unsigned add(unsigned* to, unsigned value) {
  const HooksOff off;
  return detector.add(to, value, __builtin_return_address(0));
}
unsigned long long add(unsigned long long* to, unsigned long long value) {
  const HooksOff off;
  return detector.add(to, value, __builtin_return_address(0));
}
void access(const void* memory, size_t bytes, Kind kind, const void* place) {
  if (!hooks_are_on) return;
  const HooksOff off;
  detector.access(memory, bytes, kind, place);
}

Totals totals() { return detector.totals(); }
const std::set<std::string>& kernels() { return detector.kernels(); }
std::string report() { return detector.races().report(); }
void forget_races() { detector.races().forget(); }

}  // namespace steppe::races
