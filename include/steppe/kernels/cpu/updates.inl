// The updates of base optimizers, written once over sixteen lanes. updates.hpp includes this text once per instruction
// set, as instruction_sets.hpp does with passes.inl.
// SPDX-License-Identifier: MIT

STEPPE_NAMESPACE_BEGIN
namespace kernels::cpu::STEPPE_INSTRUCTION_SET {

/// d = g + weight_decay w.
template <class T>
struct Decayed {
  explicit Decayed(const UpdateRule& rule)
      : decays(!exact::is_zero(rule.weight_decay)), decay(all<T>(static_cast<Number<T>>(rule.weight_decay))) {}
  STEPPE_ALWAYS_INLINE Pack<T> operator()(Pack<T> g, Pack<T> w) const { return decays ? plus(g, times(decay, w)) : g; }

  bool decays;
  Pack<T> decay;
};

template <class T>
struct Average {
  explicit Average(double stays)
      : kept(all<T>(static_cast<Number<T>>(stays))), added(all<T>(static_cast<Number<T>>(1.0 - stays))) {}
  STEPPE_ALWAYS_INLINE Pack<T> operator()(Pack<T> average, Pack<T> x) const { return plus(times(kept, average), times(added, x)); }

  Pack<T> kept, added;
};

template <class T>
struct SgdUpdate {
  explicit SgdUpdate(const UpdateRule& rule)
      : decayed(rule),
        lr(all<T>(static_cast<Number<T>>(rule.lr))),
        momentum(all<T>(static_cast<Number<T>>(rule.momentum))),
        share(all<T>(static_cast<Number<T>>(1.0 - rule.dampening))),
        has_momentum(rule.has_momentum()),
        fresh(rule.fresh),
        nesterov(rule.nesterov) {}

  STEPPE_ALWAYS_INLINE Pack<T> operator()(Pack<T> w, Pack<T> g, Pack<T>* kept) const {
    Pack<T> d = decayed(g, w);
    if (has_momentum) {
      Pack<T>& b = kept[0];
      b = fresh ? d : plus(times(momentum, b), times(share, d));
      d = nesterov ? plus(d, times(momentum, b)) : b;
    }
    return minus(w, times(lr, d));
  }

  Decayed<T> decayed;
  Pack<T> lr, momentum, share;
  bool has_momentum, fresh, nesterov;
};

template <class T>
struct AdamUpdate {
  explicit AdamUpdate(const UpdateRule& rule)
      : decayed(rule),
        first(rule.beta1),
        second(rule.beta2),
        rate(all<T>(static_cast<Number<T>>(rule.lr / rule.c1))),
        scale(all<T>(static_cast<Number<T>>(1.0 / std::sqrt(rule.c2)))),
        eps(all<T>(static_cast<Number<T>>(rule.eps))),
        shrink(all<T>(static_cast<Number<T>>(1.0 - exact::product(rule.lr, rule.weight_decay)))),
        decoupled(rule.kind == UpdateRule::Kind::AdamW),
        amsgrad(rule.amsgrad) {}

  STEPPE_ALWAYS_INLINE Pack<T> operator()(Pack<T> w, Pack<T> g, Pack<T>* kept) const {
    const Pack<T> d = decoupled ? g : decayed(g, w);
    if (decoupled) w = times(shrink, w);
    kept[0] = first(kept[0], d);
    kept[1] = second(kept[1], times(d, d));
    if (amsgrad) kept[2] = choose(above(kept[2], kept[1]), kept[2], kept[1]);
    const Pack<T> spread = plus(times(root(amsgrad ? kept[2] : kept[1]), scale), eps);
    return minus(w, over(times(rate, kept[0]), spread));
  }

  Decayed<T> decayed;
  Average<T> first, second;
  Pack<T> rate, scale, eps, shrink;
  bool decoupled, amsgrad;
};

template <class T>
struct AdagradUpdate {
  explicit AdagradUpdate(const UpdateRule& rule)
      : decayed(rule),
        lr(all<T>(static_cast<Number<T>>(rule.lr / (1.0 + exact::product(rule.step - 1.0, rule.lr_decay))))),
        eps(all<T>(static_cast<Number<T>>(rule.eps))) {}

  STEPPE_ALWAYS_INLINE Pack<T> operator()(Pack<T> w, Pack<T> g, Pack<T>* kept) const {
    const Pack<T> d = decayed(g, w);
    kept[0] = plus(kept[0], times(d, d));
    return minus(w, over(times(lr, d), plus(root(kept[0]), eps)));
  }

  Decayed<T> decayed;
  Pack<T> lr, eps;
};

template <class T>
struct RmsPropUpdate {
  explicit RmsPropUpdate(const UpdateRule& rule)
      : decayed(rule),
        average(rule.alpha),
        lr(all<T>(static_cast<Number<T>>(rule.lr))),
        eps(all<T>(static_cast<Number<T>>(rule.eps))),
        momentum(all<T>(static_cast<Number<T>>(rule.momentum))),
        has_momentum(rule.has_momentum()),
        centered(rule.centered) {}

  STEPPE_ALWAYS_INLINE Pack<T> operator()(Pack<T> w, Pack<T> g, Pack<T>* kept) const {
    const Pack<T> d = decayed(g, w);
    kept[0] = average(kept[0], times(d, d));
    Pack<T> squares = kept[0];
    if (centered) {
      kept[2] = average(kept[2], d);
      squares = minus(squares, times(kept[2], kept[2]));
    }
    const Pack<T> spread = plus(root(squares), eps);
    if (!has_momentum) return minus(w, over(times(lr, d), spread));
    kept[1] = plus(times(momentum, kept[1]), over(d, spread));
    return minus(w, times(lr, kept[1]));
  }

  Decayed<T> decayed;
  Average<T> average;
  Pack<T> lr, eps, momentum;
  bool has_momentum, centered;
};

/// `kHeld`: which of the kept tensors have memory, one bit each.
template <class Update, unsigned kHeld, class T>
void update_run(const Update& rule_in_memory, T* w, const T* g, T* const* kept, int64_t n) {
  constexpr bool first = (kHeld & 1u) != 0, second = (kHeld & 2u) != 0, third = (kHeld & 4u) != 0;
  T *const a = kept[0], *const b = kept[1], *const c = kept[2];
  const Update rule = rule_in_memory;  // a copy, which the stores cannot alias
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    Pack<T> memory[kKept] = {};
    if constexpr (first) memory[0] = load(a + i);
    if constexpr (second) memory[1] = load(b + i);
    if constexpr (third) memory[2] = load(c + i);
    store(w + i, rule(load(w + i), load(g + i), memory));
    if constexpr (first) store(a + i, memory[0]);
    if constexpr (second) store(b + i, memory[1]);
    if constexpr (third) store(c + i, memory[2]);
  }
  if (i == n) return;
  const int left = static_cast<int>(n - i);
  Pack<T> memory[kKept] = {};
  if constexpr (first) memory[0] = load(a + i, left);
  if constexpr (second) memory[1] = load(b + i, left);
  if constexpr (third) memory[2] = load(c + i, left);
  store(w + i, rule(load(w + i, left), load(g + i, left), memory), left);
  if constexpr (first) store(a + i, memory[0], left);
  if constexpr (second) store(b + i, memory[1], left);
  if constexpr (third) store(c + i, memory[2], left);
}

template <class T>
void update(const UpdateRule& rule, T* w, const T* g, T* const* kept, int64_t n) {
  switch (rule.kind) {
    case UpdateRule::Kind::SGD:
      if (!rule.has_momentum()) return update_run<SgdUpdate<T>, 0>(SgdUpdate<T>(rule), w, g, kept, n);
      return update_run<SgdUpdate<T>, 1>(SgdUpdate<T>(rule), w, g, kept, n);
    case UpdateRule::Kind::Adam:
    case UpdateRule::Kind::AdamW:
      if (rule.amsgrad) return update_run<AdamUpdate<T>, 7>(AdamUpdate<T>(rule), w, g, kept, n);
      return update_run<AdamUpdate<T>, 3>(AdamUpdate<T>(rule), w, g, kept, n);
    case UpdateRule::Kind::Adagrad:
      return update_run<AdagradUpdate<T>, 1>(AdagradUpdate<T>(rule), w, g, kept, n);
    case UpdateRule::Kind::RMSprop:
      if (rule.has_momentum() && rule.centered)
        return update_run<RmsPropUpdate<T>, 7>(RmsPropUpdate<T>(rule), w, g, kept, n);
      if (rule.has_momentum()) return update_run<RmsPropUpdate<T>, 3>(RmsPropUpdate<T>(rule), w, g, kept, n);
      if (rule.centered) return update_run<RmsPropUpdate<T>, 5>(RmsPropUpdate<T>(rule), w, g, kept, n);
      return update_run<RmsPropUpdate<T>, 1>(RmsPropUpdate<T>(rule), w, g, kept, n);
  }
}

}  // namespace kernels::cpu::STEPPE_INSTRUCTION_SET
STEPPE_NAMESPACE_END
