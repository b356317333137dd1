// The passes, written once over sixteen lanes. instruction_sets.hpp includes this text once per instruction set, with
// STEPPE_INSTRUCTION_SET naming the namespace of the lanes, inside the region that is compiled for it.
// SPDX-License-Identifier: MIT

namespace steppe::kernels::cpu::STEPPE_INSTRUCTION_SET {

/// A lane is in the part of the run that is left.
template <class T>
inline Pack<T> load_some(const T* from, int64_t left) {
  return left >= kLanes ? load(from) : load(from, static_cast<int>(left));
}

inline Mask valid_lanes(int64_t left) { return first_lanes(left >= kLanes ? kLanes : static_cast<int>(left)); }

template <class T>
double squares(const T* g, int64_t n) {
  auto sums = make_sums<T>();
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) sums.add_squares(load(g + i));
  if (i < n) sums.add_squares(load(g + i, static_cast<int>(n - i)));
  return sums.total();
}

template <class T>
void sums(const T* g, int64_t n, double& sum, double& squares_of) {
  auto linear = make_sums<T>(), square = make_sums<T>();
  int64_t i = 0;
  for (; i < n; i += kLanes) {
    const auto x = load_some(g + i, n - i);
    linear.add(x);
    square.add_squares(x);
  }
  sum += linear.total();
  squares_of += square.total();
}

template <class T, bool kCentralized, bool kPlateau>
void window_run(const T* g, int64_t n, const Rule<T>& rule, const Window<Number<T>>& window, Seen<Number<T>>& seen) {
  const auto row_mean = all<T>(rule.row_mean), centre = all<T>(window.centre), low = all<T>(window.low);
  const auto high = all<T>(window.high), plateau = all<T>(window.plateau), zero = all<T>(0);
  auto linear = make_sums<T>(), square = make_sums<T>(), above_square = make_sums<T>();
  int64_t above_count = 0, plateau_count = 0;
  Number<T>* list = seen.list;
  for (int64_t i = 0; i < n; i += kLanes) {
    auto x = load_some(g + i, n - i);
    if constexpr (kCentralized) x = rounded<T>(minus(x, row_mean));
    const auto distance = absolute(minus(x, centre));
    Mask outside = above(distance, high), inside = above(distance, low);
    // The lanes behind the end hold zeros; a centralized zero is none.
    if (n - i < kLanes) {
      outside = both(outside, valid_lanes(n - i));
      inside = both(inside, valid_lanes(n - i));
      if constexpr (kCentralized) x = choose(valid_lanes(n - i), x, zero);
    }
    linear.add(x);
    square.add_squares(x);
    if constexpr (kPlateau) {
      Mask level = equal(x, plateau);
      if (n - i < kLanes) level = both(level, valid_lanes(n - i));
      plateau_count += count(level);
      outside = without(outside, level);
      inside = without(inside, level);
    }
    above_count += count(outside);
    above_square.add_squares(choose(outside, x, zero));
    inside = without(inside, outside);
    if (any(inside)) list += compress(list, x, inside);
  }
  seen.sum += linear.total();
  seen.squares += square.total();
  seen.above_squares += above_square.total();
  seen.above += above_count;
  seen.plateau += plateau_count;
  seen.list = list;
}

template <class T>
void window(const T* g, int64_t n, const Rule<T>& rule, const Window<Number<T>>& bounds, Seen<Number<T>>& seen) {
  if (rule.centralized) {
    bounds.has_plateau ? window_run<T, true, true>(g, n, rule, bounds, seen)
                       : window_run<T, true, false>(g, n, rule, bounds, seen);
  } else {
    bounds.has_plateau ? window_run<T, false, true>(g, n, rule, bounds, seen)
                       : window_run<T, false, false>(g, n, rule, bounds, seen);
  }
}

template <class T>
inline Pack<T> centralized(Pack<T> x, const Rule<T>& rule) {
  return rule.centralized ? rounded<T>(minus(x, all<T>(rule.row_mean))) : x;
}

template <class T>
inline Mask kept_lanes(Pack<T> x, const Rule<T>& rule) {
  return above(absolute(rounded<T>(minus(x, all<T>(rule.mean)))), all<T>(rule.threshold));
}

/// |w| + eta
template <class T>
inline Pack<T> scale_of(Pack<T> w, const Rule<T>& rule) {
  return rounded<T>(plus(absolute(w), all<T>(rule.eta)));
}

template <class T>
void distances(const T* g, int64_t n, const Rule<T>& rule, Number<T>* to) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const auto x = centralized<T>(load_some(g + i, n - i), rule);
    const auto distance = absolute(rounded<T>(minus(x, all<T>(rule.mean))));
    if (n - i >= kLanes)
      store(to + i, distance);
    else
      store(to + i, distance, static_cast<int>(n - i));
  }
}

template <class T>
void measure(const T* g, const T* w, int64_t n, const Rule<T>& rule, Measured& measured) {
  auto once = make_sums<T>(), twice = make_sums<T>();
  const auto zero = all<T>(0);
  int64_t kept = 0;
  for (int64_t i = 0; i < n; i += kLanes) {
    auto u = centralized<T>(load_some(g + i, n - i), rule);
    Mask keep = valid_lanes(n - i);
    if (rule.filtered) keep = both(keep, kept_lanes<T>(u, rule));
    kept += count(keep);
    u = choose(keep, u, zero);
    if (rule.scaled) {
      const auto scale = scale_of<T>(load_some(w + i, n - i), rule);
      u = rounded<T>(times(u, scale));
      twice.add_squares(rounded<T>(times(u, scale)));
    }
    once.add_squares(u);
  }
  measured.measure += once.total();
  measured.length += rule.scaled ? twice.total() : once.total();
  measured.kept += kept;
}

/// What a run of the ascent is compiled for: one feature of the rule alone, or whatever it holds.
enum class Case { Plain, Centralized, Filtered, Scaled, Any };

/// One pack of `out`; the bits of w that are not moved stay as they are.
template <class T, Case kCase>
inline Pack<T> moved(Pack<T> x, Pack<T> w, const Rule<T>& rule, Pack<T> factor) {
  const bool any = kCase == Case::Any;
  if (kCase == Case::Centralized || (any && rule.centralized)) x = rounded<T>(minus(x, all<T>(rule.row_mean)));
  Pack<T> u = x;
  if (kCase == Case::Scaled || (any && rule.scaled)) {
    const auto scale = scale_of<T>(w, rule);
    u = rounded<T>(times(rounded<T>(times(x, scale)), scale));
  }
  const auto at = plus(w, rounded<T>(times(u, factor)));
  if (kCase == Case::Filtered || (any && rule.filtered)) return choose(kept_lanes<T>(x, rule), at, w);
  return at;
}

template <class T, Case kCase>
void ascend_run(const T* g, const T* w, T* out, int64_t n, const Rule<T>& rule, Number<T> factor, bool past_cache) {
  const auto factors = all<T>(factor);
  int64_t i = 0;
  if (sizeof(T) == sizeof(float) && past_cache && reinterpret_cast<uintptr_t>(out) % (kLanes * sizeof(T)) == 0) {
    for (; i + kLanes <= n; i += kLanes) stream(out + i, moved<T, kCase>(load(g + i), load(w + i), rule, factors));
    fence();
  }
  for (; i + kLanes <= n; i += kLanes) store(out + i, moved<T, kCase>(load(g + i), load(w + i), rule, factors));
  if (i == n) return;
  const int left = static_cast<int>(n - i);
  store(out + i, moved<T, kCase>(load(g + i, left), load(w + i, left), rule, factors), left);
}

template <class T>
void ascend(const T* g, const T* w, T* out, int64_t n, const Rule<T>& rule, Number<T> factor, bool past_cache) {
  const int features = rule.centralized + rule.filtered + rule.scaled;
  if constexpr (sizeof(T) == sizeof(float)) {
    if (features == 0) return ascend_run<T, Case::Plain>(g, w, out, n, rule, factor, past_cache);
    if (features == 1 && rule.centralized)
      return ascend_run<T, Case::Centralized>(g, w, out, n, rule, factor, past_cache);
    if (features == 1 && rule.filtered) return ascend_run<T, Case::Filtered>(g, w, out, n, rule, factor, past_cache);
    if (features == 1) return ascend_run<T, Case::Scaled>(g, w, out, n, rule, factor, past_cache);
  }
  ascend_run<T, Case::Any>(g, w, out, n, rule, factor, past_cache);
}

template <class N>
int64_t count_above(const N* x, int64_t n, N bound) {
  const auto bounds = all<N>(bound);
  int64_t found = 0, i = 0;
  for (; i + kLanes <= n; i += kLanes) found += count(above(load(x + i), bounds));
  if (i < n) found += count(both(above(load(x + i, static_cast<int>(n - i)), bounds), valid_lanes(n - i)));
  return found;
}

template <class N>
int64_t between(const N* x, int64_t n, N low, N high, N* to) {
  const auto lows = all<N>(low), highs = all<N>(high);
  N* end = to;
  for (int64_t i = 0; i < n; i += kLanes) {
    const auto some = load_some(x + i, n - i);
    Mask inside = without(above(some, lows), above(some, highs));
    if (n - i < kLanes) inside = both(inside, valid_lanes(n - i));
    if (any(inside)) end += compress(end, some, inside);
  }
  return end - to;
}

template <class N>
double kept_squares(const N* x, int64_t n, N mean, N threshold, int64_t& kept) {
  auto square = make_sums<N>();
  const auto means = all<N>(mean), thresholds = all<N>(threshold), zero = all<N>(0);
  for (int64_t i = 0; i < n; i += kLanes) {
    const auto some = load_some(x + i, n - i);
    const Mask keep = both(above(absolute(minus(some, means)), thresholds), valid_lanes(n - i));
    kept += count(keep);
    square.add_squares(choose(keep, some, zero));
  }
  return square.total();
}

template <class T>
const Passes<T>& passes() {
  using N = Number<T>;
  static constexpr Passes<T> all_passes = {squares<T>, sums<T>,        window<T>,  distances<T>,   measure<T>,
                                           ascend<T>,  count_above<N>, between<N>, kept_squares<N>};
  return all_passes;
}

}  // namespace steppe::kernels::cpu::STEPPE_INSTRUCTION_SET
