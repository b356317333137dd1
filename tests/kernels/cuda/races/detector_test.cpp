// The detector finds what it is there for, under every schedule, and nothing in kernels that are right.
// SPDX-License-Identifier: MIT
#include "detector.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "watched_launch.hpp"

namespace steppe::races {
namespace {

/// Kernels are lambdas over a block and this.
struct Shared {
  int x[64];
  bool last, flags[2];
};
template <class Body>
struct Kernel {
  using Shared = races::Shared;
  void operator()(const WatchedBlock& block, Shared& shared) const { body(block, shared); }
  Body body;
};
template <class Body>
Kernel(Body) -> Kernel<Body>;

constexpr uint64_t kSchedules = 50;

/// In how many schedules there are races.
template <class Body>
uint64_t found(int threads, int blocks, const Body& body) {
  uint64_t schedules = 0;
  for (uint64_t seed = 1; seed <= kSchedules; ++seed) {
    const uint64_t before = totals().races;
    WatchedLaunch(threads, blocks, seed)(Kernel{body});
    schedules += totals().races > before ? 1 : 0;
  }
  forget_races();
  return schedules;
}

TEST(RaceDetector, SeesWritesOfTwoBlocksToTheSamePlace) {
  int x[2] = {};
  EXPECT_EQ(found(1, 2, [&](auto& block, Shared&) { x[0] = block.index(); }), kSchedules);
  EXPECT_EQ(found(1, 2, [&](auto& block, Shared&) { x[block.index()] = block.index(); }), 0u);
}

TEST(RaceDetector, SeesAReadBesideAWrite) {
  int x[2] = {}, y[2] = {};
  EXPECT_EQ(found(2, 1,
                  [&](auto& block, Shared&) {
                    if (block.thread() == 0) x[0] = 1;
                    y[block.thread()] = x[0];
                  }),
            kSchedules);
  EXPECT_EQ(found(2, 2,
                  [&](auto& block, Shared& shared) {
                    if (block.index() == 0) y[block.thread()] = x[0];
                    shared.x[block.thread()] = x[1];
                  }),
            0u);
}

TEST(RaceDetector, TellsBytesApart) {
  const auto with = [](int apart) {
    return [apart](auto& block, Shared& shared) { shared.flags[block.thread() * apart] = true; };
  };
  EXPECT_EQ(found(2, 1, with(0)), kSchedules);
  EXPECT_EQ(found(2, 1, with(1)), 0u);
}

TEST(RaceDetector, SeesAMissingBarrier) {
  const auto with = [](bool barrier) {
    return [barrier](auto& block, Shared& shared) {
      const int thread = block.thread();
      shared.x[thread] = thread;
      if (barrier) block.sync();
      const int other = shared.x[(thread + 33) % 64];
      if (barrier) block.sync();
      shared.x[thread] = other;
    };
  };
  EXPECT_EQ(found(64, 2, with(false)), kSchedules);
  EXPECT_EQ(found(64, 2, with(true)), 0u);
}

TEST(RaceDetector, SeesAMissingBarrierBeforeMemoryIsUsedAgain) {
  const auto with = [](bool barrier) {
    return [barrier](auto& block, Shared& shared) {
      int sum = 0;
      for (int round = 0; round < 2; ++round) {
        if (block.thread() == 0) shared.x[0] = round;
        block.sync();
        sum += shared.x[0];
        if (barrier) block.sync();
      }
      shared.x[1 + block.thread()] = sum;
    };
  };
  EXPECT_EQ(found(8, 1, with(false)), kSchedules);
  EXPECT_EQ(found(8, 1, with(true)), 0u);
}

TEST(RaceDetector, SeesAMissingSynchronizationOfAWarp) {
  enum class By { Nothing, Warp, Shuffle };
  const auto with = [](By by, int distance) {
    return [by, distance](auto& block, Shared& shared) {
      const int thread = block.thread();
      shared.x[thread] = thread;
      if (by == By::Warp) block.sync_warp();
      if (by == By::Shuffle) block.shuffle_down(1.0, 1, 32);
      const int other = shared.x[thread ^ distance];
      if (by == By::Warp) block.sync_warp();
      shared.x[thread] = other;
    };
  };
  EXPECT_EQ(found(64, 1, with(By::Nothing, 1)), kSchedules);
  EXPECT_EQ(found(64, 1, with(By::Shuffle, 1)), kSchedules);
  EXPECT_EQ(found(64, 1, with(By::Warp, 32)), kSchedules) << "a warp does not wait for another";
  EXPECT_EQ(found(64, 1, with(By::Warp, 1)), 0u);
}

TEST(RaceDetector, SeesWhatATicketNeeds) {
  std::vector<int> x(8);
  unsigned ticket = 0;
  const auto with = [&](bool before, bool after, bool barriers) {
    return [&, before, after, barriers](auto& block, Shared& shared) {
      const int thread = block.thread();
      x[static_cast<size_t>(block.index() * 2 + thread)] = 1;
      if (barriers) block.sync();
      if (thread == 0) {
        if (before) block.publish();
        shared.last = block.add(&ticket, 1u) + 1u == 4u;
        if (after) block.publish();
        if (shared.last) ticket = 0;
      }
      block.sync();
      if (!shared.last) return;
      int sum = 0;
      for (const int each : x) sum += each;
      shared.x[thread] = sum;
    };
  };
  EXPECT_EQ(found(2, 4, with(false, true, true)), kSchedules) << "without the fence before it";
  EXPECT_EQ(found(2, 4, with(true, false, true)), kSchedules) << "without the fence after it";
  EXPECT_EQ(found(2, 4, with(false, false, true)), kSchedules) << "without either";
  EXPECT_EQ(found(2, 4, with(true, true, false)), kSchedules) << "without the barrier before it";
  EXPECT_EQ(found(2, 4, with(true, true, true)), 0u);
}

TEST(RaceDetector, SeesATicketResetByAnotherThanTheLast) {
  unsigned ticket = 0;
  const auto with = [&](bool by_first) {
    return [&, by_first](auto& block, Shared&) {
      const unsigned arrived = block.add(&ticket, 1u);
      if (arrived == (by_first ? 0u : 3u)) ticket = 0;
    };
  };
  // A schedule in which the first has reset it before another comes is a race no less.
  EXPECT_EQ(found(1, 4, with(true)), kSchedules);
  ticket = 0;
  EXPECT_EQ(found(1, 4, with(false)), 0u);
}

TEST(RaceDetector, SeesAPlainReadBesideAtomics) {
  unsigned sum = 0;
  const auto with = [&](bool barrier) {
    return [&, barrier](auto& block, Shared& shared) {
      if (block.thread() == 0) sum = 0;
      block.sync();
      block.add(&sum, 1u);
      if (barrier) block.sync();
      shared.x[block.thread()] = static_cast<int>(sum);
    };
  };
  EXPECT_EQ(found(8, 1, with(false)), kSchedules);
  EXPECT_EQ(found(8, 1, with(true)), 0u);
}

TEST(RaceDetector, SeesVectorsThatOverlap) {
  struct alignas(16) Vector {
    int x[4];
  };
  Vector from{}, to[4] = {};
  const auto with = [&](int other) {
    return [&, other](auto& block, Shared&) {
      if (block.thread() == 0)
        to[other] = from;
      else
        to[1].x[3] = 1;
    };
  };
  EXPECT_EQ(found(2, 1, with(1)), kSchedules);
  EXPECT_EQ(found(2, 1, with(2)), 0u);
}

TEST(RaceDetector, ALaunchComesAfterTheOneBefore) {
  int x[8] = {};
  for (const int by : {1, 7})
    EXPECT_EQ(found(8, 1, [&](auto& block, Shared&) { x[(block.thread() * by) % 8] += 1; }), 0u);
}

TEST(RaceDetector, ThrowsWhereAThreadIsWaitedForInVain) {
  const auto run = [](auto body) { WatchedLaunch(64, 2, 1)(Kernel{body}); };
  const auto half = [](auto& block, Shared&) {
    if (block.thread() % 2 == 0) block.sync();
  };
  const auto of_a_warp = [](auto& block, Shared&) {
    if (block.thread() % 2 == 0) block.shuffle_down(1.0, 1, 32);
  };
  EXPECT_THROW(run(half), std::logic_error);
  EXPECT_THROW(run(of_a_warp), std::logic_error);
}

TEST(RaceDetector, NamesBothAccesses) {
  int x = 0;
  WatchedLaunch(1, 2, 1)(Kernel{[&](auto& block, Shared&) {
    if (block.index() == 0) x = 1;
    if (block.index() == 1) block.add(reinterpret_cast<unsigned*>(&x), 1u);
  }});
  const std::string text = report();
  EXPECT_NE(text.find("1 times, first in Kernel<"), std::string::npos) << text;
  EXPECT_NE(text.find("block 0, thread 0 writes at "), std::string::npos) << text;
  EXPECT_NE(text.find("block 1, thread 0 adds atomically at "), std::string::npos) << text;
  forget_races();
  EXPECT_EQ(report(), "");
}

}  // namespace
}  // namespace steppe::races
