#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes reference trajectories of every method, computed from the published formulas alone.

    generate.py OUT            write the trajectories to OUT
    generate.py --check OUT    compute them again and compare with OUT

Python >= 3.8, standard library only. A tensor is a flat list of floats, a set of tensors a list of those.
"""
import argparse
import copy
import math
import sys
from dataclasses import dataclass, field
from itertools import combinations, zip_longest
from math import fsum  # sum() rounds differently from one Python to the next
from typing import Callable, Optional, Union

STEPS = 20
RECORDED_STEPS = (1, 2, 5, 10, 20)
CHECK_TOLERANCE = 1e-11  # another libm may round differently

# ---------------------------------------------------------------- The problem: a small network, differentiated by hand

BATCH, SIDE, CHANNELS, FEATURES, HIDDEN, OUTPUTS = 6, 5, 2, 18, 5, 3
SHAPES = {"K": (CHANNELS, 1, 3, 3), "kb": (CHANNELS,), "gain": (FEATURES,), "W1": (HIDDEN, FEATURES), "b1": (HIDDEN,),
          "W2": (OUTPUTS, HIDDEN), "b2": (OUTPUTS,)}
GAIN, OUTPUT_WEIGHT = list(SHAPES).index("gain"), list(SHAPES).index("W2")


def each(function, *sets):
    """Applies a function of numbers, element by element, to sets of tensors."""
    return [list(map(function, *tensors)) for tensors in zip(*sets)]


def flatten(tensors):
    return [value for tensor in tensors for value in tensor]


def zeros_like(tensors):
    return each(lambda _: 0.0, tensors)


def noise(state):
    """Values in (-1, 1) from a small linear congruential generator."""
    while True:
        state = (1103515245 * state + 12345) % 2**31
        yield (2 * state + 1) / 2**31 - 1


def make_problem(seed=2024):
    """Initial parameters, inputs and targets, rounded so that the file stays short and exact."""
    random = noise(seed)

    def draw(shape, size, offset=0.0):
        return [round(offset + size * next(random), 4) for _ in range(math.prod(shape))]

    sizes = {"K": 0.6, "kb": 0.2, "gain": 0.3, "W1": 0.5, "b1": 0.2, "W2": 0.8, "b2": 0.2}
    weights = [draw(shape, sizes[name], 1.0 if name == "gain" else 0.0) for name, shape in SHAPES.items()]
    return weights, draw((BATCH, 1, SIDE, SIDE), 1.5), draw((BATCH, OUTPUTS), 2.0)


def input_index(s, k):
    """Where feature s (channel, row, column) reads the input under kernel element k."""
    row, column = divmod(s % 9, 3)
    return (row + k // 3) * SIDE + column + k % 3


def loss_and_gradient(weights, inputs, targets, samples=range(BATCH)):
    """Mean squared error over samples and outputs, and its gradient by the chain rule."""
    K, kb, gain, W1, b1, W2, b2 = weights
    gradient = zeros_like(weights)
    dK, dkb, dgain, dW1, db1, dW2, db2 = gradient
    features, hidden, outputs, kernel = range(FEATURES), range(HIDDEN), range(OUTPUTS), range(9)
    loss = 0.0
    for sample in samples:
        x, target = inputs[sample * SIDE**2:], targets[sample * OUTPUTS:]
        a = [math.tanh(kb[s // 9] + fsum(K[s // 9 * 9 + k] * x[input_index(s, k)] for k in kernel)) for s in features]
        h = [gain[s] * a[s] for s in features]
        u = [math.tanh(b1[i] + fsum(W1[i * FEATURES + s] * h[s] for s in features)) for i in hidden]
        error = [b2[o] + fsum(W2[o * HIDDEN + i] * u[i] for i in hidden) - target[o] for o in outputs]
        loss += fsum(e * e for e in error)

        dy = [2 * e / (len(samples) * OUTPUTS) for e in error]
        dz = [(1 - u[i] ** 2) * fsum(W2[o * HIDDEN + i] * dy[o] for o in outputs) for i in hidden]
        for o in outputs:
            db2[o] += dy[o]
            for i in hidden:
                dW2[o * HIDDEN + i] += dy[o] * u[i]
        for i in hidden:
            db1[i] += dz[i]
            for s in features:
                dW1[i * FEATURES + s] += dz[i] * h[s]
        for s in features:
            dh = fsum(W1[i * FEATURES + s] * dz[i] for i in hidden)
            dgain[s] += dh * a[s]
            dpre = dh * gain[s] * (1 - a[s] ** 2)
            dkb[s // 9] += dpre
            for k in kernel:
                dK[s // 9 * 9 + k] += dpre * x[input_index(s, k)]
    return loss / (len(samples) * OUTPUTS), gradient


# In the tied problem W2 enters the network detached and TIED_SLOPE * sum(W2) is added to the loss: all components of
# its gradient are alike.
TIED_SLOPE = 0.05


def tied_gradient(gradient):
    return [[TIED_SLOPE] * len(g) if i == OUTPUT_WEIGHT else g for i, g in enumerate(gradient)]


# ---------------------------------------------------------------- Base optimizers (the conventions of LibTorch)

class Sgd:
    def __init__(self, lr=0.1, momentum=0.9, weight_decay=1e-3):
        self.lr, self.momentum, self.weight_decay, self.buffer = lr, momentum, weight_decay, None

    def step(self, weights, gradient):
        decayed = each(lambda w, g: g + self.weight_decay * w, weights, gradient)
        self.buffer = each(lambda b, g: self.momentum * b + g, self.buffer, decayed) if self.buffer else decayed
        return each(lambda w, b: w - self.lr * b, weights, self.buffer)

    def average(self):
        """The average of past gradients that the optimizer keeps, None before the first step."""
        return self.buffer

    def keeps_average(self):
        return self.momentum > 0


class Adam:
    def __init__(self, weight_decay=1e-3, decoupled=False, lr=0.01, betas=(0.9, 0.999), eps=1e-8):
        self.weight_decay, self.decoupled, self.lr, self.betas, self.eps = weight_decay, decoupled, lr, betas, eps
        self.count, self.m, self.v = 0, None, None

    def step(self, weights, gradient):
        if self.decoupled:
            weights = each(lambda w: w * (1 - self.lr * self.weight_decay), weights)
        else:
            gradient = each(lambda w, g: g + self.weight_decay * w, weights, gradient)
        beta1, beta2 = self.betas
        self.count += 1
        self.m = each(lambda m, g: beta1 * m + (1 - beta1) * g, self.m or zeros_like(gradient), gradient)
        self.v = each(lambda v, g: beta2 * v + (1 - beta2) * g * g, self.v or zeros_like(gradient), gradient)
        size, root = self.lr / (1 - beta1 ** self.count), math.sqrt(1 - beta2 ** self.count)
        return each(lambda w, m, v: w - size * m / (math.sqrt(v) / root + self.eps), weights, self.m, self.v)

    def average(self):
        return self.m

    def keeps_average(self):
        return True


class RmsProp:
    def __init__(self, momentum, lr=0.001, alpha=0.99, eps=1e-8, weight_decay=1e-3):
        self.lr, self.alpha, self.eps, self.weight_decay, self.momentum = lr, alpha, eps, weight_decay, momentum
        self.square, self.buffer = None, None

    def step(self, weights, gradient):
        gradient = each(lambda w, g: g + self.weight_decay * w, weights, gradient)
        self.square = each(lambda v, g: self.alpha * v + (1 - self.alpha) * g * g,
                           self.square or zeros_like(gradient), gradient)
        scaled = each(lambda g, v: g / (math.sqrt(v) + self.eps), gradient, self.square)
        self.buffer = each(lambda b, x: self.momentum * b + x, self.buffer or zeros_like(gradient), scaled)
        return each(lambda w, b: w - self.lr * b, weights, self.buffer)

    def average(self):
        return self.buffer

    def keeps_average(self):
        return self.momentum > 0


BASES = {"sgd": Sgd, "adam": Adam, "adamw": lambda: Adam(weight_decay=0.1, decoupled=True)}
# For MSAM alone, which looks at what the base optimizer keeps.
MSAM_BASES = {"rmsprop": lambda: RmsProp(momentum=0.9), "rmsprop_no_momentum": lambda: RmsProp(momentum=0.0),
              "sgd_no_momentum": lambda: Sgd(momentum=0.0)}


# ---------------------------------------------------------------- Filters: which components of a tensor are kept

@dataclass
class Filter:
    percentile: Union[float, Callable] = 0.75  # a number or a function of the step
    center: str = "mean"                       # "mean" or "median"
    joint: bool = False                        # one threshold on |z| over all filtered tensors
    released_code: bool = False                # each filtered tensor normalised by itself
    energy: Optional[float] = None             # share of the squared norm to keep, instead of a percentile
    min_dim: int = 2
    empty_tail_whole: bool = False             # an emptied tensor keeps its gradient only where all are emptied


def mean(values):
    return fsum(values) / len(values)


def median(values):
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2


def norm(values):
    return math.sqrt(fsum(value * value for value in values))


def distances(values, center):
    middle = mean(values) if center == "mean" else median(values)
    return [abs(value - middle) for value in values]


def z_scores(values, center):
    """|z|: over the sample standard deviation from the mean, or over the scaled MAD from the median."""
    d = distances(values, center)
    spread = norm(d) / math.sqrt(len(d) - 1) if center == "mean" else 1.4826 * median(d)
    return [x / (spread + 1e-12) for x in d]


def above_quantile(values, q):
    """Strictly above the linearly interpolated quantile; refuses cases that rounding could turn."""
    ordered = sorted(values)
    position = q * (len(ordered) - 1)
    low = math.floor(position)
    fraction = position - low
    assert fraction == 0 or 1e-6 < fraction < 1 - 1e-6, "quantile too close to an order statistic"
    assert sum(abs(value - ordered[low]) <= 1e-9 * ordered[low] for value in values) == 1, "a tie at the threshold"
    threshold = ordered[low] + fraction * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])
    kept = [value > threshold for value in values]
    assert kept == [value > ordered[low] for value in values]
    return kept


def above_energy(values, share):
    """The fewest components, largest first, that hold the share of the squared norm, and ties with the last."""
    wanted, held = share * fsum(value * value for value in values), 0.0
    for size in sorted(map(abs, values), reverse=True):
        held += size * size
        assert abs(held - wanted) > 1e-9 * wanted, "energy too close to the share"
        if held >= wanted:
            return [abs(value) >= size for value in values]


def masks(rule, gradient, shapes, step):
    """One mask per tensor; None where a tensor is not filtered or keeps its gradient."""
    q = rule.percentile(step) if callable(rule.percentile) else rule.percentile
    filtered = [i for i, shape in enumerate(shapes) if len(shape) >= rule.min_dim and math.prod(shape) > 2]
    result = [None] * len(shapes)
    if rule.joint:
        z = [z_scores(gradient[i], rule.center) for i in filtered]
        found = iter(above_quantile(flatten(z), q))
        of_tensor = each(lambda _: next(found), z)
        if any(flatten(of_tensor)):
            for i, mask in zip(filtered, of_tensor):
                result[i] = mask
        return result
    for i in filtered:
        if min(gradient[i]) == max(gradient[i]) and rule.energy is None:
            result[i] = [False] * len(gradient[i])  # a tie that no rounding can turn: nothing is above the threshold
        else:
            result[i] = (above_quantile(distances(gradient[i], rule.center), q) if rule.energy is None
                         else above_energy(gradient[i], rule.energy))
    if rule.empty_tail_whole and any(any(result[i]) for i in filtered):
        return result
    return [mask if mask is not None and any(mask) else None for mask in result]


# ---------------------------------------------------------------- What a step does with the gradients

def dot(a, b):
    return fsum(x * y for x, y in zip(flatten(a), flatten(b)))


def size(tensors):
    """The global norm."""
    return norm(flatten(tensors))


def times(factor, tensors):
    return each(lambda x: factor * x, tensors)


def plus(a, factor, b):
    """a + factor * b"""
    return each(lambda x, y: x + factor * y, a, b)


def average(share, old, new):
    """share * old + (1 - share) * new"""
    return each(lambda x, y: share * x + (1 - share) * y, old, new)


@dataclass
class Sam:
    """A step of SAM. Every rule below replaces a part of it; what it remembers are its last fields."""

    def gradient(self, run):
        """What the base optimizer gets."""
        g = run.gradient_at()
        if run.step % run.method.every != 0:
            return g
        e = self.perturbation(run, g)
        return self.combined(run, g, e, run.gradient_at(e))

    def perturbation(self, run, g):
        return run.perturbation(g)

    def combined(self, run, g, e, final):
        """The gradients at w and at w + e made into one."""
        return centralized(final, run.shapes, run.method.centralize) if run.method.center_descent else final

    def after(self, run, weights):
        """The weights after the base step."""
        return weights

    def check(self):
        """Refuses a run that did not show what it is there for."""


def orthogonal_part(final, g):
    """What of final is not along g."""
    return plus(final, -dot(g, final) / dot(g, g), g)


def with_direction(g, g_v, alpha):
    """g and alpha times its norm along g_v."""
    return plus(g, alpha * size(g) / size(g_v), g_v) if size(g_v) != 0 else g


def tensor_by_tensor(function, a, b):
    return [function([x], [y])[0] for x, y in zip(a, b)]


@dataclass
class LookSam(Sam):
    k: int = 5
    alpha: float = 0.3
    per_tensor: bool = False   # each tensor with dot product and norms of its own
    measured: bool = False     # N(g_v) / N(g) of the last perturbed step in alpha's place
    g_v: Optional[list] = None

    def gradient(self, run):
        g = run.gradient_at()
        if run.step % self.k != 0:
            if self.per_tensor:
                return tensor_by_tensor(lambda x, y: with_direction(x, y, self.alpha), g, self.g_v)
            return with_direction(g, self.g_v, self.alpha)
        final = run.gradient_at(run.perturbation(g))
        self.g_v = tensor_by_tensor(orthogonal_part, final, g) if self.per_tensor else orthogonal_part(final, g)
        if self.measured:
            self.alpha = size(self.g_v) / size(g)
        return final


@dataclass
class Msam(Sam):
    own: Optional[list] = None  # the average of the gradients that came out, for a base that keeps none

    def gradient(self, run):
        v = run.base.average() if run.base.keeps_average() else self.own
        still = v is None or size(v) == 0
        g = run.gradient_at(None if still else times(-run.method.rho / size(v), v))  # minus: along the coming step
        self.own = average(0.9, self.own or zeros_like(g), g)
        return g


@dataclass
class AeSam(Sam):
    c_first: float = 1.0
    c_last: float = -1.0
    total: int = STEPS
    var_first_s: bool = False            # var starts at the first s, not at e^-10
    look_alpha: Optional[float] = None   # AE-LookSAM: plain steps descend along g_v too
    mu: float = 0.0
    var: Optional[float] = None
    g_v: Optional[list] = None
    taken: list = field(default_factory=list)

    def gradient(self, run):
        g = run.gradient_at()
        s = dot(g, g)
        if self.var is None:
            self.var = s if self.var_first_s else math.exp(-10)
        self.mu = 0.9 * self.mu + 0.1 * s
        self.var = 0.9 * self.var + 0.1 * (s - self.mu) ** 2
        c = self.c_first + (self.c_last - self.c_first) * min(run.step / self.total, 1)
        bound = self.mu + c * math.sqrt(self.var)
        assert abs(s - bound) > 1e-6 * s, "a decision that rounding could turn"
        self.taken.append(s >= bound)
        if s >= bound:
            final = run.gradient_at(run.perturbation(g))
            self.g_v = orthogonal_part(final, g)
            return final
        return g if self.look_alpha is None or self.g_v is None else with_direction(g, self.g_v, self.look_alpha)

    def check(self):
        assert True in self.taken and False in self.taken, "only one kind of step was taken"


@dataclass
class S2Sam(Sam):
    last: Optional[list] = None  # the last step's gradient, taken at its perturbed point

    def gradient(self, run):
        self.last = run.gradient_at(None if self.last is None else times(run.method.rho / size(self.last), self.last))
        return self.last


@dataclass
class Friendly(Sam):
    sigma: float = 1.0
    lam: float = 0.9
    with_current: bool = False  # subtract the average that g has already entered
    m: Optional[list] = None

    def perturbation(self, run, g):
        if self.m is None:
            self.m, d = g, g
        else:
            old, self.m = self.m, average(self.lam, self.m, g)
            d = plus(g, -self.sigma, self.m if self.with_current else old)
        return run.perturbation(d)


@dataclass
class Vasso(Sam):
    theta: float = 0.9
    zero_start: bool = False
    d: Optional[list] = None

    def perturbation(self, run, g):
        before = self.d or (zeros_like(g) if self.zero_start else g)
        self.d = average(1 - self.theta, before, g)
        return run.perturbation(self.d)


@dataclass
class FisherMask(Sam):
    sparsity: float = 0.5
    interval: int = 1
    mask: Optional[list] = None  # ones and zeros

    def perturbation(self, run, g):
        if run.step % self.interval == 0:
            fisher = each(lambda x: x * x, g)
            ordered = sorted(flatten(fisher), reverse=True)
            kept = math.floor((1 - self.sparsity) * len(ordered) + 0.5)
            if kept < len(ordered):
                assert ordered[kept - 1] > ordered[kept] * (1 + 1e-9), "a tie at the edge of the mask"
            self.mask = each(lambda f: 1.0 if f >= ordered[kept - 1] else 0.0, fisher)
        return each(lambda m, x: run.method.rho * m * x / size(g), self.mask, g)


@dataclass
class Gsam(Sam):
    alpha: float = 0.4

    def combined(self, run, g, e, final):
        return plus(final, -self.alpha, orthogonal_part(g, final))


@dataclass
class Wsam(Sam):
    gamma: float = 0.9
    decoupled: bool = False
    sharpness: Optional[list] = None

    def combined(self, run, g, e, final):
        self.sharpness = plus(final, -1, g)
        return g if self.decoupled else plus(g, self.gamma / (1 - self.gamma), self.sharpness)

    def after(self, run, weights):
        step = run.base.lr * self.gamma / (1 - self.gamma)
        return plus(weights, -step, self.sharpness) if self.decoupled else weights


@dataclass
class StableSam(Sam):
    def combined(self, run, g, e, final):
        return times(size(g) / size(final), final)


@dataclass
class Xsam(Sam):
    a: Optional[float] = None  # fixed, or searched every `interval` steps
    interval: int = 0
    rho_max: float = 0.3

    def combined(self, run, g, e, final):
        v0, v1 = times(1 / size(e), e), times(1 / size(final), final)
        psi = math.acos(max(-1, min(dot(v0, v1), 1)))

        def v(a):
            if math.sin(psi) < 1e-8:
                return times(0.5, plus(v0, 1, v1))
            return plus(times(math.sin((1 - a) * psi) / math.sin(psi), v0), math.sin(a * psi) / math.sin(psi), v1)

        if self.interval and run.step % self.interval == 0:
            # The direction of the maximum around w, so the highest loss; among equals the smallest a.
            losses = sorted((-run.loss_at(times(self.rho_max, v(i / 10))), i / 10) for i in range(21))
            assert losses[1][0] - losses[0][0] > 1e-9, "a search that rounding could turn"
            self.a = losses[0][1]
        return times(size(final), v(self.a))


@dataclass
class LossEquated(Sam):
    sigma: Callable = None  # of the step
    delta: float = 1e-12
    taken: list = field(default_factory=list)

    def perturbation(self, run, g):
        wanted = self.sigma(run.step) / (size(g) + self.delta)
        self.taken.append(wanted < run.method.rho)  # rho is the largest radius here
        return times(min(wanted, run.method.rho) / size(g), g)

    def check(self):
        assert True in self.taken and False in self.taken, "the largest radius was met always or never"


@dataclass
class Unified(Sam):
    share: float = 0.5  # of the normalised gradient

    def perturbation(self, run, g):
        return times(run.method.rho * (1 - self.share + self.share / size(g)), g)


@dataclass
class Ascents(Sam):
    count: int = 2

    def perturbation(self, run, g):
        e = times(run.method.rho / self.count / size(g), g)
        for _ in range(1, self.count):
            here = run.gradient_at(e)
            e = plus(e, run.method.rho / self.count / size(here), here)
        return e


@dataclass
class AscentBatch(Sam):
    """The direction from some of the samples, the descent over all."""
    samples: range = range(BATCH // 2)

    def perturbation(self, run, g):
        return run.perturbation(run.gradient_at(samples=self.samples))


# ---------------------------------------------------------------- Methods

@dataclass
class Method:
    rho: Union[float, Callable] = 0.2  # a number or a function of the step
    p: float = 2.0                     # the norm in which rho is measured
    centralize: Optional[int] = None   # fewest dimensions of the tensors that are centralized
    norm_of_raw: bool = False          # divide by the norm of the untouched gradient
    center_descent: bool = False       # centralize the descent gradient too
    filter: Optional[Filter] = None
    adaptive: Optional[str] = None     # "paper", "paper_gain" or "davda54"
    every: int = 1                     # perturb at the steps t with t % every == 0
    rho_first: Optional[float] = None  # rho of a first group (K, kb, gain), where there are two
    first_in_norm: bool = True
    rule: Sam = field(default_factory=Sam)
    lr: Callable = lambda step: 1.0    # the factor on the base's learning rate
    tied: bool = False                 # the problem with a constant gradient in W2


def linear(a, b, steps):
    return lambda t: a + (b - a) * min(t / steps, 1)


def cosine(a, b, steps):
    return lambda t: b + (a - b) * (1 + math.cos(math.pi * min(t / steps, 1))) / 2


def following(lr, lr_min, rho_min, rho_max):
    """A radius that moves with the learning rate: rho_max at the base's own, rho_min at lr_min times it."""
    return lambda t: max(0.0, rho_min + (rho_max - rho_min) * (lr(t) - lr_min) / (1 - lr_min))


TAIL = round((1 - 0.3) * STEPS)  # the first step of the last 30 %


def tail(rho, ramp=1):
    """No perturbation before the tail; rho = 0 leaves the gradient as it is."""
    return lambda t: 0.0 if t < TAIL else rho * min(1, (t - TAIL + 1) / ramp)


def wsd(warmup, least):
    def factor(t):
        if t < warmup:
            return (t + 1) / warmup
        return 1.0 if t < TAIL else 1 - (1 - least) * (t - TAIL) / (STEPS - TAIL)
    return factor


def cosine_tail(least):
    return lambda t: 1.0 if t < TAIL else (
        least + (1 - least) * (1 + math.cos(math.pi * (t - TAIL) / (STEPS - TAIL))) / 2)


FALLING = linear(1.0, 0.1, STEPS)  # of the learning rate

METHODS = {
    "sam": Method(),
    "sam_p_inf": Method(rho=0.1, p=math.inf),
    "sam_p3": Method(p=3.0),
    "asam_paper": Method(rho=0.5, adaptive="paper"),
    "asam_paper_gain": Method(rho=0.5, adaptive="paper_gain"),
    "asam_davda54": Method(rho=2.0, adaptive="davda54"),
    "asam_p_inf": Method(p=math.inf, adaptive="paper"),
    "zsharp_75": Method(filter=Filter()),
    "zsharp_95": Method(filter=Filter(0.95)),
    "zsharp_min_dim_1": Method(filter=Filter(min_dim=1)),
    "zsharp_released_code": Method(filter=Filter(released_code=True)),
    "zsharp_global_75": Method(filter=Filter(joint=True)),
    "zsharp_global_95": Method(filter=Filter(0.95, joint=True)),
    "zsharp_percentile_schedule": Method(filter=Filter(linear(0.5, 0.95, 10))),
    "zsharp_energy_90": Method(filter=Filter(energy=0.9)),
    "zsharp_robust_75": Method(filter=Filter(center="median")),
    "zsharp_robust_global_75": Method(filter=Filter(center="median", joint=True)),
    "gcsam": Method(centralize=2),
    "gcsam_norm_raw": Method(centralize=2, norm_of_raw=True),
    "gcsam_center_descent": Method(centralize=2, center_descent=True),
    "gcsam_conv_only": Method(centralize=4),
    "centralize_filter": Method(centralize=2, filter=Filter()),
    "centralize_filter_adaptive_paper": Method(rho=0.5, centralize=2, filter=Filter(), adaptive="paper"),
    "centralize_adaptive_davda54": Method(rho=2.0, centralize=2, adaptive="davda54"),
    "sam_groups": Method(rho=0.3, rho_first=0.1),
    "sam_group_zero_in_norm": Method(rho=0.3, rho_first=0.0),
    "sam_group_zero_outside_norm": Method(rho=0.3, rho_first=0.0, first_in_norm=False),
    "sam_every_3": Method(every=3),
    "sam_rho_cosine": Method(rho=cosine(0.05, 0.3, STEPS)),
    "sam_rho_linear": Method(rho=linear(0.05, 0.3, STEPS)),

    # Near the base's cost.
    "tail_03": Method(rho=tail(0.2)),
    "tail_03_ramp_2": Method(rho=tail(0.2, ramp=2)),
    "tail_03_wsd_warmup_3": Method(rho=tail(0.2), lr=wsd(3, 0.0)),
    "tail_03_cosine_tail_least_01": Method(rho=tail(0.2), lr=cosine_tail(0.1)),
    "msam_rho_03": Method(rho=0.3, rule=Msam()),
    "looksam_k5_alpha_03": Method(rule=LookSam()),
    "looksam_k5_alpha_03_per_tensor": Method(rule=LookSam(per_tensor=True)),
    "looksam_k5_measured": Method(rule=LookSam(measured=True)),
    "aesam_c_1_to_minus_1": Method(rule=AeSam()),
    "aesam_c_minus_1_to_1_total_12": Method(rule=AeSam(c_first=-1.0, c_last=1.0, total=12)),
    "aesam_c_1_to_minus_1_var_first_s": Method(rule=AeSam(var_first_s=True)),
    "aelooksam_alpha_03": Method(rule=AeSam(look_alpha=0.3)),
    "s2sam": Method(rule=S2Sam()),

    # Directions with state.
    "friendly_sigma_1_lam_09": Method(rule=Friendly()),
    "friendly_with_current_sigma_05_lam_09": Method(rule=Friendly(sigma=0.5, with_current=True)),
    "vasso_theta_09": Method(rule=Vasso()),
    "vasso_theta_04_zero_start": Method(rule=Vasso(theta=0.4, zero_start=True)),
    "ssam_fisher_sparsity_05_interval_4": Method(rule=FisherMask(interval=4)),
    "ssam_fisher_sparsity_08_interval_1": Method(rule=FisherMask(sparsity=0.8)),

    # Final gradients.
    "gsam_alpha_04": Method(rule=Gsam()),
    "gsam_alpha_04_rho_follows_lr": Method(rule=Gsam(), lr=FALLING, rho=following(FALLING, 0.1, 0.05, 0.3)),
    "gsam_alpha_04_rho_follows_lr_to_0": Method(rule=Gsam(), lr=FALLING, rho=following(FALLING, 0.4, 0.0, 0.3)),
    "wsam_gamma_09": Method(rule=Wsam()),
    "wsam_gamma_09_decoupled": Method(rule=Wsam(decoupled=True)),
    "stablesam": Method(rule=StableSam()),
    "xsam_a_07": Method(rho=0.15, rule=Xsam(a=0.7)),
    "xsam_search_every_3": Method(rho=0.15, rule=Xsam(interval=3)),

    # Radii, ascents and compositions.
    "lesam_sigma_03": Method(rule=LossEquated(sigma=cosine(0.3, 0.0, STEPS))),
    "unified_l_05": Method(rule=Unified()),
    "sam_two_ascents": Method(rule=Ascents()),
    "sam_ascent_first_three_samples": Method(rule=AscentBatch()),
    "looksam_over_zsharp_75": Method(rule=LookSam(), filter=Filter()),
    "gsam_over_asam_paper": Method(rho=0.5, rule=Gsam(), adaptive="paper"),
    "friendly_over_gcsam": Method(rule=Friendly(), centralize=2),
    "zsharp_75_tied": Method(filter=Filter(), tied=True),
    "zsharp_75_tied_empty_tail_whole": Method(filter=Filter(empty_tail_whole=True), tied=True),
}


def centralized(gradient, shapes, min_dim):
    """Subtracts the mean of every output row from the tensors with at least min_dim dimensions."""
    result = []
    for values, shape in zip(gradient, shapes):
        if len(shape) >= min_dim:
            width = len(values) // shape[0]
            means = [mean(values[i:i + width]) for i in range(0, len(values), width)]
            values = [value - means[i // width] for i, value in enumerate(values)]
        result.append(values)
    return result


def operator(adaptive, weights, shapes):
    """The diagonal T of adaptive SAM; ones for plain SAM."""
    if adaptive == "davda54":
        return each(abs, weights)
    eta = 0.01
    scaled = [adaptive is not None and (len(shape) >= 2 or (adaptive == "paper_gain" and i == GAIN))
              for i, shape in enumerate(shapes)]
    return [[abs(w) + eta if on else 1.0 for w in tensor] for on, tensor in zip(scaled, weights)]


def released_code(rho, gradient, direction, mask_of, eps):
    """Each filtered tensor by its own norm, the others by the raw global norm."""
    whole = norm(flatten(gradient)) + eps
    sizes = [whole if mask is None else norm(d) + 1e-12 for d, mask in zip(direction, mask_of)]
    return [[rho * x / size for x in d] for d, size in zip(direction, sizes)]


def perturbation(method, weights, gradient, shapes, step, eps=0.0):
    """e of the step. eps, added to the global norm, only serves to explain published figures."""
    rho = method.rho(step) if callable(method.rho) else method.rho
    direction = gradient if method.centralize is None else centralized(gradient, shapes, method.centralize)
    if method.filter is not None:
        mask_of = masks(method.filter, direction, shapes, step)
        direction = [d if mask is None else [x if keep else 0.0 for x, keep in zip(d, mask)]
                     for d, mask in zip(direction, mask_of)]
        if method.filter.released_code:
            return released_code(rho, gradient, direction, mask_of, eps)
    T = operator(method.adaptive, weights, shapes)
    scaled = each(lambda t, d: t * d, T, direction)

    first = 0 if method.rho_first is None else GAIN + 1  # how many tensors are in the first group
    measured = flatten((gradient if method.norm_of_raw else scaled)[0 if method.first_in_norm else first:])
    if not any(measured):
        return zeros_like(weights)
    if math.isinf(method.p):
        assert min(map(abs, measured)) > 1e-9, "a component too close to zero for a safe sign"
    q = 1.0 if math.isinf(method.p) else method.p / (method.p - 1)
    size = fsum(abs(x) ** q for x in measured) ** (1 / method.p) if q != 2 else norm(measured) + eps
    unit = each(lambda t, x: t * math.copysign(abs(x) ** (q - 1), x) / size, T, scaled)
    return [[(method.rho_first if i < first else rho) * x for x in tensor] for i, tensor in enumerate(unit)]


class Run:
    """A method over a base: what a rule may ask for. A disturbance shows how rounding grows."""

    def __init__(self, method, base, problem, disturbance=None):
        self.method, self.base, self.disturbance = method, base, disturbance
        self.weights, self.inputs, self.targets = problem
        self.shapes, self.step = list(SHAPES.values()), 0

    def evaluate(self, e, samples=range(BATCH)):
        at = self.weights if e is None else plus(self.weights, 1, e)
        loss, gradient = loss_and_gradient(at, self.inputs, self.targets, samples)
        if self.disturbance is not None:
            gradient = each(lambda g: g * (1 + 1e-15 * next(self.disturbance)) + 1e-16 * next(self.disturbance),
                            gradient)
        if self.method.tied:
            return loss + TIED_SLOPE * fsum(at[OUTPUT_WEIGHT]), tied_gradient(gradient)
        return loss, gradient

    def loss_at(self, e=None):
        """At w + e."""
        return self.evaluate(e)[0]

    def gradient_at(self, e=None, samples=range(BATCH)):
        return self.evaluate(e, samples)[1]

    def perturbation(self, direction):
        return perturbation(self.method, self.weights, direction, self.shapes, self.step)


def run(method, base, problem, disturbance=None):
    """[(step, clean loss, parameters after it)] and the rule as it is after the last step"""
    state, rule, lr, records = Run(method, base, problem, disturbance), copy.deepcopy(method.rule), base.lr, []
    for step in range(STEPS):
        state.step, base.lr = step, lr * method.lr(step)
        loss = state.loss_at() if step + 1 in RECORDED_STEPS else None
        state.weights = rule.after(state, base.step(state.weights, rule.gradient(state)))
        if loss is not None:
            records.append((step + 1, loss, flatten(state.weights)))
    return records, rule


def named_run(method_name, base_name, problem, disturbance=None):
    """(method, base, its records)"""
    base = {**BASES, **MSAM_BASES}[base_name]()
    records, rule = run(METHODS[method_name], base, problem, disturbance)
    rule.check()
    return method_name, base_name, records


# ---------------------------------------------------------------- Self-checks

def check_gradients(problem, h=1e-5):
    """Central differences against the gradient made by hand."""
    weights, inputs, targets = problem
    _, gradient = loss_and_gradient(weights, inputs, targets)
    worst = 0.0
    for i, tensor in enumerate(weights):
        for j, w in enumerate(tensor):
            tensor[j] = w + h
            above, _ = loss_and_gradient(weights, inputs, targets)
            tensor[j] = w - h
            below, _ = loss_and_gradient(weights, inputs, targets)
            tensor[j] = w
            worst = max(worst, abs((above - below) / (2 * h) - gradient[i][j]))
    assert worst < 1e-8, f"gradient differs from central differences by {worst}"
    print(f"gradient: central differences agree to {worst:.1e}")


# Published examples: the tensors are gradients; the epsilon stands beside the global norm; e per (tensor, element).
EXAMPLE_SHAPES = [(2, 4), (2, 3), (2,)]
EXAMPLE = [[.1, -.2, .3, -.4, .5, -.6, .7, 5.0], [.02, -.01, .04, 0.0, .03, -.05], [.2, -.1]]
WORKED_EXAMPLES = [
    ("zsharp", Method(rho=0.05, filter=Filter()), 1e-8,
     {(0, 5): -0.005950916912473857, (0, 7): 0.04959097427061548, (1, 2): 0.00039672779416492386,
      (1, 5): -0.0004959097427061549, (2, 0): 0.0019836389708246197, (2, 1): -0.0009918194854123099}),
    ("zsharp released_code", Method(rho=0.05, filter=Filter(released_code=True)), 1e-12,
     {(0, 5): -0.005957261030920349, (0, 7): 0.04964384192433624, (1, 2): 0.031234752377233405,
      (1, 5): -0.03904344047154176, (2, 0): 0.0019442048089668073, (2, 1): -0.0009721024044834037}),
    ("gcsam", Method(rho=0.05, centralize=2), 1e-12,
     {(0, 0): .001738808974142178, (0, 1): -.0017388089741421776, (0, 2): .00405722093966508,
      (0, 3): -.004057220939665081}),
    ("gcsam norm raw", Method(rho=0.05, centralize=2, norm_of_raw=True), 1e-12,
     {(0, 0): .0014581536067251055, (0, 1): -.001458153606725105, (0, 2): .0034023584156919117,
      (0, 3): -.0034023584156919126}),
]


def check_worked_examples():
    """Every published figure is met with the epsilon that its source put beside the norm."""
    assert abs(norm(flatten(EXAMPLE)) - 5.143491032363136) < 1e-15
    assert abs(norm(flatten(centralized(EXAMPLE, EXAMPLE_SHAPES, 2))) - 4.313297269297971) < 1e-15
    for name, method, published_eps, published in WORKED_EXAMPLES:
        off = {}
        for eps in (0.0, 1e-12, 1e-8, 1e-7, 1e-6):
            e = perturbation(method, EXAMPLE, EXAMPLE, EXAMPLE_SHAPES, 0, eps)
            assert method.filter is None or sum(map(bool, flatten(e))) == len(published), "other components are kept"
            off[eps] = max(abs(e[tensor][i] / value - 1) for (tensor, i), value in published.items())
        print(f"worked example {name}: " + ", ".join(f"eps {eps:g} off by {d:.1e}" for eps, d in off.items()))
        assert off[published_eps] < 1e-15, "a published figure is not met"


def largest_difference(a, b):
    return max(abs(x - y) for (_, _, left), (_, _, right) in zip(a, b) for x, y in zip(left, right))


# Settings with which a method is another one.
IDENTITIES = [
    ("sam", Method(rule=LookSam(k=1))),
    ("sam", Method(rule=AeSam(c_first=-1e9, c_last=-1e9))),
    ("sam", Method(rule=Friendly(sigma=0.0))),
    ("friendly_sigma_1_lam_09", Method(rule=Friendly(with_current=True))),  # g - m either way, up to its length
    ("sam", Method(rule=Vasso(theta=1.0))),
    ("sam", Method(rule=FisherMask(sparsity=0.0))),
    ("sam", Method(rule=Gsam(alpha=0.0))),
    ("sam", Method(rule=Wsam(gamma=0.5))),
    ("sam", Method(rule=Xsam(a=1.0))),
    ("sam", Method(rule=LossEquated(sigma=lambda t: 1e9))),
    ("sam", Method(rule=Unified(share=1.0))),
    ("sam", Method(rule=Ascents(count=1))),
    ("sam", Method(rule=AscentBatch(samples=range(BATCH)))),
    ("zsharp_75", Method(filter=Filter(empty_tail_whole=True))),
]


def check_identities(problem):
    worst = 0.0
    for name, method in IDENTITIES:
        same = largest_difference(run(METHODS[name], Sgd(), problem)[0], run(method, Sgd(), problem)[0])
        assert same < 1e-12, f"{method} is not {name}, it differs by {same}"
        worst = max(worst, same)
    print(f"{len(IDENTITIES)} settings with which a method is another one: they agree to {worst:.1e}")


def check_runs(runs, problem):
    """Rounding must not grow to the tests' tolerance, and no two methods may look alike."""
    disturbance = noise(7)
    worst = max(largest_difference(r[2], named_run(r[0], r[1], problem, disturbance)[2]) for r in runs)
    assert worst < 1e-12, f"rounding grows to {worst}"
    alike = min((largest_difference(a[2], b[2]), a[:2], b[:2]) for a, b in combinations(runs, 2) if a[1] == b[1])
    assert alike[0] > 1e-4, f"too much alike: {alike}"
    print(f"{len(runs)} runs: rounding grows to {worst:.1e}; the two most alike differ by {alike[0]:.1e} {alike[1:]}")


# ---------------------------------------------------------------- The file

def file_text(problem, runs):
    weights, inputs, targets = problem
    tensors = [*zip(SHAPES, SHAPES.values(), weights), ("inputs", (BATCH, 1, SIDE, SIDE), inputs),
               ("targets", (BATCH, OUTPUTS), targets)]
    lines = [["steppe-baselines", 1]]
    lines += [["tensor", name, len(shape), *shape, *values] for name, shape, values in tensors]
    for method, base, records in runs:
        lines.append(["run", method, base])
        lines += [["step", step, "loss", loss, *parameters] for step, loss, parameters in records]
    return "".join(" ".join(map(str, line)) + "\n" for line in lines)


def same_word(a, b):
    try:
        return abs(float(a) - float(b)) <= CHECK_TOLERANCE
    except ValueError:
        return a == b


def first_difference(expected, found):
    """The number of the first line that differs by more than rounding, or None."""
    lines = zip_longest(expected.splitlines(), found.splitlines(), fillvalue="")
    for number, (a, b) in enumerate((map(str.split, pair) for pair in lines), 1):
        if len(a) != len(b) or not all(map(same_word, a, b)):
            return number
    return None


def main():
    parser = argparse.ArgumentParser(description="Writes or checks the reference trajectories.")
    parser.add_argument("--check", action="store_true", help="compare with OUT instead of writing it")
    parser.add_argument("out", metavar="OUT")
    arguments = parser.parse_args()

    problem = make_problem()
    check_gradients(problem)
    check_worked_examples()
    check_identities(problem)
    runs = [named_run(method, base, problem) for method in METHODS for base in BASES]
    runs += [named_run("msam_rho_03", base, problem) for base in MSAM_BASES]
    check_runs(runs, problem)
    if not arguments.check:
        with open(arguments.out, "w", newline="\n") as out:
            out.write(file_text(problem, runs))
        return 0
    with open(arguments.out) as existing:
        line = first_difference(file_text(problem, runs), existing.read())
    if line is not None:
        print(f"{arguments.out}:{line} differs from the formulas; if they changed on purpose, run without --check")
    return 0 if line is None else 1


if __name__ == "__main__":
    sys.exit(main())
