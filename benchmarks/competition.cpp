// SPDX-License-Identifier: MIT
#include "competition.hpp"

#include <iostream>
#include <memory>
#include <utility>

#include "check.hpp"
#include "contestant.hpp"
#include "engine.hpp"
#include "floor.hpp"
#include "peers.hpp"
#include "problem.hpp"

namespace benchmarks {
namespace {

Entry engine_entry(const Problem& problem, Method method) {
  Entry entry{name_of(method), method, bytes_of(method), std::make_unique<Engine>(problem, method, true)};
  entry.norm_error = 1e-6;
  return entry;
}

template <class Peer>
Entry peer_entry(const char* name, const Problem& problem, double bytes) {
  return {name, Method::Sam, bytes, std::make_unique<Peer>(problem)};
}

void add_filtered_peers(std::vector<Entry>& entries, const Problem& problem) {
  using Selection = FilteredPeer::Selection;
  const std::pair<const char*, Selection> peers[] = {{"kthvalue", Selection::Kthvalue},
                                                     {"quantile", Selection::Quantile}};
  for (const auto& [name, selection] : peers) {
    if (!FilteredPeer::can_do(problem, selection)) {
      std::cout << name << " is left out: it cannot handle tensors of this size\n";
      continue;
    }
    Entry entry{name, Method::ZSharp, 0.0, std::make_unique<FilteredPeer>(problem, selection)};
    // at::quantile computes the rank in float32, which sometimes moves it by one.
    entry.may_differ = selection == Selection::Quantile ? 1 : 0;
    entries.push_back(std::move(entry));
  }
}

std::vector<Entry> entries_for(const Problem& problem, Field field) {
  std::vector<Entry> entries;
  entries.push_back(peer_entry<Floor>("floor", problem, 16.0));
  entries.push_back(engine_entry(problem, Method::Sam));
  entries.push_back(peer_entry<AtenPeer>("aten", problem, 32.0));
  entries.push_back(peer_entry<ForeachPeer>("foreach", problem, 32.0));
  entries.push_back(peer_entry<SwapPeer>("aten_swap", problem, 16.0));
  entries.push_back(peer_entry<Davda54Peer>("davda54", problem, 48.0));
  if (field == Field::Small) return entries;
  entries.push_back(engine_entry(problem, Method::Gcsam));
  entries.push_back(engine_entry(problem, Method::Asam));
  entries.push_back(engine_entry(problem, Method::ZSharp));
  if (field == Field::All) add_filtered_peers(entries, problem);
  entries.push_back(engine_entry(problem, Method::ZSharpTies));
  return entries;
}

/// Seconds of each entry's first ascent and restore.
std::vector<double> check_all(const std::vector<Entry>& entries, Problem& problem) {
  std::vector<double> seconds;
  std::vector<at::Tensor> expected;
  const Entry* last = nullptr;
  for (const Entry& entry : entries) {
    if (last == nullptr || last->method != entry.method) expected = reference_weights(problem, entry.method);
    last = &entry;
    seconds.push_back(check(entry, problem, expected));
  }
  return seconds;
}

std::vector<Timed> timed(const std::vector<Entry>& entries, const std::vector<double>& seconds, Problem& problem,
                         Field field, const RoundLimits& limits) {
  constexpr double kSlow = 1.0;
  std::vector<Timed> contestants;
  for (size_t i = 0; i < entries.size(); ++i) {
    Contestant* const contestant = entries[i].contestant.get();
    const bool tied = entries[i].method == Method::ZSharpTies;
    Timed one;
    one.reset = [&problem, tied] { problem.reset_gradients(tied); };
    one.run = [contestant] {
      contestant->ascend();
      contestant->restore();
    };
    one.tidy = [contestant] { contestant->tidy(); };
    one.inner = seconds[i] > kSlow ? 1 : limits.inner;
    if (field == Field::Small) one.repetitions = limits.repetitions;
    contestants.push_back(std::move(one));
  }
  return contestants;
}

}  // namespace

const Times* Results::find(const std::string& name) const {
  for (const Times& one : times)
    if (one.name == name) return &one;
  return nullptr;
}

Results compete(const ParameterList& list, Field field, const RoundLimits& limits) {
  constexpr double kDisturbed = 1.5;
  Problem problem(list, limits.seed);
  const std::vector<Entry> entries = entries_for(problem, field);
  std::cerr << list.name << ": checking " << entries.size() << " contestants" << std::endl;
  const std::vector<double> seconds = check_all(entries, problem);
  std::cerr << list.name << ": every result agrees with the reference path; timing" << std::endl;
  Samples samples = time_rounds(timed(entries, seconds, problem, field, limits), limits);

  Results results{list.name, list.components(), list.shapes.size(), drop_slow_rounds(samples, 0, kDisturbed), {}};
  for (size_t i = 0; i < entries.size(); ++i)
    results.times.push_back({entries[i].name, entries[i].bytes, std::move(samples[i])});
  return results;
}

}  // namespace benchmarks
