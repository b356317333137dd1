// The passes, written once over sixteen lanes. instruction_sets.hpp includes this text once per instruction set, with
// STEPPE_INSTRUCTION_SET naming the namespace of the lanes, inside the region that is compiled for it.
// SPDX-License-Identifier: MIT

STEPPE_NAMESPACE_BEGIN
namespace kernels::cpu::STEPPE_INSTRUCTION_SET {

template <class T>
inline Pack<T> load_some(const T* from, int64_t left) {
  return left >= kLanes ? load(from) : load(from, static_cast<int>(left));
}

/// The lanes that are within the rest of the run.
template <class T>
inline MaskOf<T> valid_lanes(int64_t left) {
  return first_lanes<T>(left >= kLanes ? kLanes : static_cast<int>(left));
}

/// Enough for every set's non-temporal stores.
inline bool is_aligned(const void* address) { return reinterpret_cast<uintptr_t>(address) % 64 == 0; }

template <class T>
STEPPE_ALWAYS_INLINE void add_squares(const T* g, int64_t n, Sums<T>& sums) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) sums.add_squares(widened(g + i));
  if (i < n) sums.add_squares(widened(load(g + i, static_cast<int>(n - i))));
}

template <class T>
double squares(const T* g, int64_t n) {
  Sums<T> sums;
  add_squares(g, n, sums);
  return sums.total();
}

template <class T>
void sums(const T* g, int64_t n, double& sum, double& squares_of) {
  Sums<T> linear, square;
  const auto add = [&](const auto& x) {
    linear.add(x);
    square.add_squares(x);
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) add(widened(g + i));
  if (i < n) add(widened(load(g + i, static_cast<int>(n - i))));
  sum += linear.total();
  squares_of += square.total();
}

/// A window pass over one run. Its bounds are held in packs: the list may be anywhere in memory.
template <class T>
struct WindowRun {
  Pack<T> centre, low, level;
  Sums<T> linear, square;
  int64_t plateau = 0;
};

/// What a window pass is compiled for.
struct AroundZero {
  static constexpr bool kCentralized = false, kCentred = true, kPlateau = false;
};
struct AroundCentre {
  static constexpr bool kCentralized = false, kCentred = false, kPlateau = false;
};
struct BesidePlateau {
  static constexpr bool kCentralized = false, kCentred = false, kPlateau = true;
};
template <class Kind>
struct Centralized : Kind {
  static constexpr bool kCentralized = true;
};

/// One pack, of which only the valid lanes count; the lanes that are to be listed.
template <class Kind, bool kWhole, class T>
STEPPE_ALWAYS_INLINE MaskOf<T> see(Pack<T> x, MaskOf<T> valid, WindowRun<T>& seen) {
  MaskOf<T> listed = above(absolute(Kind::kCentred ? x : minus(x, seen.centre)), seen.low);
  if constexpr (!kWhole) listed = both(listed, valid);
  if constexpr (Kind::kPlateau) {
    MaskOf<T> level = equal(x, seen.level);
    if constexpr (!kWhole) level = both(level, valid);
    seen.plateau += count(level);
    listed = without(listed, level);
  }
  return listed;
}

template <class Kind, class T>
void window_run(const T* g, int64_t n, const Rule<T>& rule, const Window<Number<T>>& window, Seen<Number<T>>& run) {
  using N = Number<T>;
  const auto row_mean = all<T>(rule.row_mean);
  const MaskOf<T> every = valid_lanes<T>(kLanes);
  WindowRun<T> seen{all<T>(window.centre), all<T>(window.low), all<T>(window.plateau), {}, {}, 0};
  const auto add = [&](const auto& x) {
    seen.linear.add(x);
    seen.square.add_squares(x);
  };
  // What a block selects from: the numbers as they are computed.
  constexpr bool kAsStored = std::is_same_v<T, N> && !Kind::kCentralized;
  N* list = run.list;
  int64_t i = 0;
  for (; i + kPacks * kLanes <= n; i += kPacks * kLanes) {
    N computed[kPacks * kLanes];
    Block<T> block;
    for (int k = 0; k < kPacks; ++k) {
      const T* const from = g + i + k * kLanes;
      auto x = load(from);
      if constexpr (Kind::kCentralized) x = rounded<T>(minus(x, row_mean));
      if constexpr (kAsStored) {
        add(widened(from));
      } else {
        store(computed + k * kLanes, x);
        add(widened(x));
      }
      block.take(k, x, see<Kind, true, T>(x, every, seen));
    }
    if constexpr (kAsStored)
      list += block.write(list, g + i);
    else
      list += block.write(list, computed);
  }
  for (; i < n; i += kLanes) {
    const MaskOf<T> valid = valid_lanes<T>(n - i);
    auto x = load_some(g + i, n - i);
    // The lanes behind the end hold zeros; a centralized zero is not zero.
    if constexpr (Kind::kCentralized) x = choose(valid, rounded<T>(minus(x, row_mean)), all<T>(0));
    add(widened(x));
    list += compress(list, x, see<Kind, false, T>(x, valid, seen));
  }
  run.sum += seen.linear.total();
  run.squares += seen.square.total();
  run.plateau += seen.plateau;
  run.list = list;
}

template <class T>
void window(const T* g, int64_t n, const Rule<T>& rule, const Window<Number<T>>& bounds, Seen<Number<T>>& seen) {
  if constexpr (kRarelyUsed<T>) {
    // The kind that does everything, with what changes nothing in the place of what is absent.
    Rule<T> every = rule;
    if (!rule.centralized) every.row_mean = 0;
    Window<Number<T>> all_bounds = bounds;
    if (!bounds.has_plateau) all_bounds.plateau = std::numeric_limits<Number<T>>::quiet_NaN();
    window_run<Centralized<BesidePlateau>>(g, n, every, all_bounds, seen);
  } else if (rule.centralized) {
    bounds.has_plateau              ? window_run<Centralized<BesidePlateau>>(g, n, rule, bounds, seen)
    : exact::is_zero(bounds.centre) ? window_run<Centralized<AroundZero>>(g, n, rule, bounds, seen)
                                    : window_run<Centralized<AroundCentre>>(g, n, rule, bounds, seen);
  } else {
    bounds.has_plateau              ? window_run<BesidePlateau>(g, n, rule, bounds, seen)
    : exact::is_zero(bounds.centre) ? window_run<AroundZero>(g, n, rule, bounds, seen)
                                    : window_run<AroundCentre>(g, n, rule, bounds, seen);
  }
}

template <class T>
inline Pack<T> centralized(Pack<T> x, const Rule<T>& rule) {
  return rule.centralized ? rounded<T>(minus(x, all<T>(rule.row_mean))) : x;
}

template <class T>
STEPPE_ALWAYS_INLINE MaskOf<T> kept_lanes(Pack<T> x, const Rule<T>& rule) {
  return either(above(all<T>(rule.bounds.low), x), above(x, all<T>(rule.bounds.high)));
}

/// |w| + eta
template <class T>
STEPPE_ALWAYS_INLINE Pack<T> scale_of(Pack<T> w, const Rule<T>& rule) {
  return rounded<T>(plus(absolute(w), all<T>(rule.eta)));
}

template <class T>
void distances(const T* g, int64_t n, const Rule<T>& rule_in_memory, Number<T>* to) {
  const Rule<T> rule = rule_in_memory;  // a copy, which `to` cannot alias
  for (int64_t i = 0; i < n; i += kLanes) {
    const auto x = centralized<T>(load_some(g + i, n - i), rule);
    const auto distance = absolute(rounded<T>(minus(x, all<T>(rule.mean))));
    if (n - i >= kLanes)
      store(to + i, distance);
    else
      store(to + i, distance, static_cast<int>(n - i));
  }
}

/// What a run is compiled for: one feature of the rule alone, or any.
enum class Case { Plain, Centralized, Filtered, Scaled, Any };

template <class T>
Case case_of(const Rule<T>& rule) {
  // Each case is a copy of the loops: worth it in the usual format only.
  if (sizeof(T) != sizeof(float) || rule.centralized + rule.filtered + rule.scaled > 1) return Case::Any;
  return rule.centralized ? Case::Centralized
         : rule.filtered  ? Case::Filtered
         : rule.scaled    ? Case::Scaled
                          : Case::Plain;
}

/// Squares of T d and T T d.
template <class T>
struct SumsOfRun {
  Sums<T> once, twice;
  int64_t kept = 0;
};

template <class T, Case kCase>
STEPPE_ALWAYS_INLINE void measure_pack(Pack<T> x, Pack<T> w, MaskOf<T> valid, const Rule<T>& rule, SumsOfRun<T>& sums) {
  constexpr bool kAny = kCase == Case::Any;
  if (kCase == Case::Centralized || (kAny && rule.centralized)) x = rounded<T>(minus(x, all<T>(rule.row_mean)));
  MaskOf<T> keep = valid;
  if (kCase == Case::Filtered || (kAny && rule.filtered)) keep = both(keep, kept_lanes<T>(x, rule));
  sums.kept += count(keep);
  Pack<T> u = choose(keep, x, all<T>(0));
  if (kCase == Case::Scaled || (kAny && rule.scaled)) {
    const auto scale = scale_of<T>(w, rule);
    u = rounded<T>(times(u, scale));
    sums.twice.add_squares(widened(rounded<T>(times(u, scale))));
  }
  sums.once.add_squares(widened(u));
}

template <class T, Case kCase>
void measure_run(const T* g, const T* w, int64_t n, const Rule<T>& rule, Measured& measured) {
  constexpr int64_t kInCache = 1024;  // read again from the nearest cache: more sums at once would need more registers
  const Rule<T> here = rule;
  const bool scales = kCase == Case::Scaled || (kCase == Case::Any && here.scaled);
  const T* scale = scales ? w : g;  // w may be absent
  const MaskOf<T> every = valid_lanes<T>(kLanes);
  Sums<T> raw;
  SumsOfRun<T> sums;
  for (int64_t begin = 0; begin < n; begin += kInCache) {
    const int64_t end = n - begin < kInCache ? n : begin + kInCache;
    if (scales) add_squares(g + begin, end - begin, raw);
    int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) measure_pack<T, kCase>(load(g + i), load(scale + i), every, here, sums);
    if (i == end) continue;
    const int left = static_cast<int>(end - i);
    measure_pack<T, kCase>(load(g + i, left), load(scale + i, left), valid_lanes<T>(left), here, sums);
  }
  measured.raw += raw.total();
  measured.measure += sums.once.total();
  measured.length += scales ? sums.twice.total() : sums.once.total();
  measured.kept += sums.kept;
}

template <class T>
void measure(const T* g, const T* w, int64_t n, const Rule<T>& rule, Measured& measured) {
  if constexpr (sizeof(T) == sizeof(float) && !kRarelyUsed<T>) {
    switch (case_of(rule)) {
      case Case::Plain:
        return measure_run<T, Case::Plain>(g, w, n, rule, measured);
      case Case::Centralized:
        return measure_run<T, Case::Centralized>(g, w, n, rule, measured);
      case Case::Filtered:
        return measure_run<T, Case::Filtered>(g, w, n, rule, measured);
      case Case::Scaled:
        return measure_run<T, Case::Scaled>(g, w, n, rule, measured);
      case Case::Any:
        break;
    }
  }
  measure_run<T, Case::Any>(g, w, n, rule, measured);
}

/// One pack of `out`; the bits of w that are not moved stay as they are.
template <class T, Case kCase>
STEPPE_ALWAYS_INLINE Pack<T> moved(Pack<T> x, Pack<T> w, const Rule<T>& rule, Pack<T> factor) {
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
void ascend_run(const T* g, const T* w, T* out, int64_t n, const Rule<T>& rule_in_memory, Number<T> factor,
                bool past_cache) {
  const Rule<T> rule = rule_in_memory;  // a copy, which `out` cannot alias
  const auto factors = all<T>(factor);
  int64_t i = 0;
  if (sizeof(T) >= sizeof(float) && past_cache && is_aligned(out)) {
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
  if constexpr (sizeof(T) == sizeof(float) && !kRarelyUsed<T>) {
    switch (case_of(rule)) {
      case Case::Plain:
        return ascend_run<T, Case::Plain>(g, w, out, n, rule, factor, past_cache);
      case Case::Centralized:
        return ascend_run<T, Case::Centralized>(g, w, out, n, rule, factor, past_cache);
      case Case::Filtered:
        return ascend_run<T, Case::Filtered>(g, w, out, n, rule, factor, past_cache);
      case Case::Scaled:
        return ascend_run<T, Case::Scaled>(g, w, out, n, rule, factor, past_cache);
      case Case::Any:
        break;
    }
  }
  ascend_run<T, Case::Any>(g, w, out, n, rule, factor, past_cache);
}

template <class N>
int64_t count_above(const N* x, int64_t n, N bound) {
  const auto bounds = all<N>(bound);
  int64_t found = 0, i = 0;
  for (; i + kLanes <= n; i += kLanes) found += count(above(load(x + i), bounds));
  if (i < n) found += count(both(above(load(x + i, static_cast<int>(n - i)), bounds), valid_lanes<N>(n - i)));
  return found;
}

template <class N>
int64_t between(const N* x, int64_t n, N low, N high, N* to) {
  const auto lows = all<N>(low), highs = all<N>(high);
  N* end = to;
  for (int64_t i = 0; i < n; i += kLanes) {
    const auto some = load_some(x + i, n - i);
    MaskOf<N> inside = without(above(some, lows), above(some, highs));
    if (n - i < kLanes) inside = both(inside, valid_lanes<N>(n - i));
    end += compress(end, some, inside);
  }
  return end - to;
}

template <class T, class N = Number<T>>
int64_t distances_between(const N* x, int64_t n, N mean, N low, N high, N* to, int64_t& above_high) {
  const auto means = all<T>(mean), lows = all<T>(low), highs = all<T>(high);
  N* end = to;
  int64_t outside_count = 0;
  for (int64_t i = 0; i < n; i += kLanes) {
    const auto distance = absolute(rounded<T>(minus(load_some(x + i, n - i), means)));
    MaskOf<T> outside = above(distance, highs), inside = above(distance, lows);
    if (n - i < kLanes) {
      outside = both(outside, valid_lanes<T>(n - i));
      inside = both(inside, valid_lanes<T>(n - i));
    }
    outside_count += count(outside);
    end += compress(end, distance, without(inside, outside));
  }
  above_high += outside_count;
  return end - to;
}

template <class N>
int64_t within(const N* x, int64_t n, const Window<N>& window, N* to, AboveWindow& taken) {
  const auto centre = all<N>(window.centre), high = all<N>(window.high), zero = all<N>(0);
  Sums<N> square;
  int64_t outside_count = 0;
  N* end = to;
  for (int64_t i = 0; i < n; i += kLanes) {
    const auto some = load_some(x + i, n - i);
    const MaskOf<N> valid = valid_lanes<N>(n - i);
    const MaskOf<N> outside = both(above(absolute(minus(some, centre)), high), valid);
    square.add_squares(widened(choose(outside, some, zero)));
    outside_count += count(outside);
    end += compress(end, some, without(valid, outside));
  }
  taken.count += outside_count;
  taken.squares += square.total();
  return end - to;
}

template <class N>
double kept_squares(const N* x, int64_t n, const FilterBounds<N>& bounds, int64_t& kept) {
  Sums<N> square;
  const auto lows = all<N>(bounds.low), highs = all<N>(bounds.high), zero = all<N>(0);
  for (int64_t i = 0; i < n; i += kLanes) {
    const auto some = load_some(x + i, n - i);
    const MaskOf<N> keep = both(either(above(lows, some), above(some, highs)), valid_lanes<N>(n - i));
    kept += count(keep);
    square.add_squares(widened(choose(keep, some, zero)));
  }
  return square.total();
}

template <class T>
ProductSums products(const T* x, const T* y, int64_t n) {
  Sums<T> xx, xy, yy;
  const auto add = [&](const auto& of_x, const auto& of_y) {
    xx.add_squares(of_x);
    xy.add_products(of_x, of_y);
    yy.add_squares(of_y);
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) add(widened(x + i), widened(y + i));
  const int left = static_cast<int>(n - i);
  if (left > 0) add(widened(load(x + i, left)), widened(load(y + i, left)));
  return {xx.total(), xy.total(), yy.total()};
}

/// The two factors of a combination.
template <class T>
struct Factors {
  Pack<T> a, b;
};

/// One pack of `out`. Each product is rounded separately: the same bits with and without fused multiply-add.
template <class T, bool kBoth>
STEPPE_ALWAYS_INLINE Pack<T> combined(Pack<T> x, Pack<T> y, const Factors<T>& factors) {
  const auto first = times(factors.a, x);
  if constexpr (kBoth) return rounded<T>(plus(first, times(factors.b, y)));
  return rounded<T>(first);
}

template <class T, bool kBoth>
double combine_run(Number<T> a, const T* x, Number<T> b, const T* y, T* out, int64_t n, bool past_cache) {
  const Factors<T> factors{all<T>(a), all<T>(b)};
  Sums<T> squares_of;
  int64_t i = 0;
  if (kStreamsWithSums && sizeof(T) >= sizeof(float) && past_cache && is_aligned(out)) {
    for (; i + kLanes <= n; i += kLanes) {
      const auto at = combined<T, kBoth>(load(x + i), load(y + i), factors);
      stream(out + i, at);
      squares_of.add_squares(widened(at));
    }
    fence();
  }
  for (; i + kLanes <= n; i += kLanes) {
    const auto at = combined<T, kBoth>(load(x + i), load(y + i), factors);
    store(out + i, at);
    squares_of.add_squares(widened(at));
  }
  if (i == n) return squares_of.total();
  const int left = static_cast<int>(n - i);
  // The lanes behind the end hold zeros, which a factor that is not finite would turn into NaN.
  const auto at =
      choose(valid_lanes<T>(left), combined<T, kBoth>(load(x + i, left), load(y + i, left), factors), all<T>(0));
  store(out + i, at, left);
  squares_of.add_squares(widened(at));
  return squares_of.total();
}

template <class T>
double combine(Number<T> a, const T* x, Number<T> b, const T* y, T* out, int64_t n, bool past_cache) {
  if (y == nullptr) return combine_run<T, false>(a, x, b, x, out, n, past_cache);
  return combine_run<T, true>(a, x, b, y, out, n, past_cache);
}

template <class T>
const Passes<T>& passes() {
  using N = Number<T>;
  static constexpr Passes<T> all_passes = {squares<T>,           sums<T>,   window<T>, distances<T>,
                                           measure<T>,           ascend<T>, count_above<N>,   between<N>,
                                           distances_between<T>, within<N>, kept_squares<N>, products<T>, combine<T>};
  return all_passes;
}

}  // namespace kernels::cpu::STEPPE_INSTRUCTION_SET
STEPPE_NAMESPACE_END
