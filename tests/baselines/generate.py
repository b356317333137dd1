#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes reference trajectories of every method, computed from the published formulas alone.

    generate.py OUT            write the trajectories to OUT
    generate.py --check OUT    compute them again and compare with OUT

Python >= 3.8, standard library only. A tensor is a flat list of floats, a set of tensors a list of those.
"""
import argparse
import math
import sys
from dataclasses import dataclass
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
GAIN = list(SHAPES).index("gain")


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


def loss_and_gradient(weights, inputs, targets):
    """Mean squared error over batch and outputs, and its gradient by the chain rule."""
    K, kb, gain, W1, b1, W2, b2 = weights
    gradient = zeros_like(weights)
    dK, dkb, dgain, dW1, db1, dW2, db2 = gradient
    features, hidden, outputs, kernel = range(FEATURES), range(HIDDEN), range(OUTPUTS), range(9)
    loss = 0.0
    for sample in range(BATCH):
        x, target = inputs[sample * SIDE**2:], targets[sample * OUTPUTS:]
        a = [math.tanh(kb[s // 9] + fsum(K[s // 9 * 9 + k] * x[input_index(s, k)] for k in kernel)) for s in features]
        h = [gain[s] * a[s] for s in features]
        u = [math.tanh(b1[i] + fsum(W1[i * FEATURES + s] * h[s] for s in features)) for i in hidden]
        error = [b2[o] + fsum(W2[o * HIDDEN + i] * u[i] for i in hidden) - target[o] for o in outputs]
        loss += fsum(e * e for e in error)

        dy = [2 * e / (BATCH * OUTPUTS) for e in error]
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
    return loss / (BATCH * OUTPUTS), gradient


# ---------------------------------------------------------------- Base optimizers (the conventions of LibTorch)

class Sgd:
    def __init__(self, lr=0.1, momentum=0.9, weight_decay=1e-3):
        self.lr, self.momentum, self.weight_decay, self.buffer = lr, momentum, weight_decay, None

    def step(self, weights, gradient):
        decayed = each(lambda w, g: g + self.weight_decay * w, weights, gradient)
        self.buffer = each(lambda b, g: self.momentum * b + g, self.buffer, decayed) if self.buffer else decayed
        return each(lambda w, b: w - self.lr * b, weights, self.buffer)


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


BASES = {"sgd": Sgd, "adam": Adam, "adamw": lambda: Adam(weight_decay=0.1, decoupled=True)}


# ---------------------------------------------------------------- Filters: which components of a tensor are kept

@dataclass
class Filter:
    percentile: Union[float, Callable] = 0.75  # a number or a function of the step
    center: str = "mean"                       # "mean" or "median"
    joint: bool = False                        # one threshold on |z| over all filtered tensors
    released_code: bool = False                # each filtered tensor normalised by itself
    energy: Optional[float] = None             # share of the squared norm to keep, instead of a percentile
    min_dim: int = 2


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
        mask = (above_quantile(distances(gradient[i], rule.center), q) if rule.energy is None
                else above_energy(gradient[i], rule.energy))
        result[i] = mask if any(mask) else None
    return result


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


def linear(a, b, steps):
    return lambda t: a + (b - a) * min(t / steps, 1)


def cosine(a, b, steps):
    return lambda t: b + (a - b) * (1 + math.cos(math.pi * min(t / steps, 1))) / 2


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


def run(method_name, base_name, problem, disturbance=None):
    """(method, base, [(step, clean loss, parameters after it)]). A disturbance shows how rounding grows."""
    method, base, shapes = METHODS[method_name], BASES[base_name](), list(SHAPES.values())
    weights, inputs, targets = problem
    records = []

    def evaluate(at):
        loss, gradient = loss_and_gradient(at, inputs, targets)
        if disturbance is not None:
            gradient = each(lambda g: g * (1 + 1e-15 * next(disturbance)) + 1e-16 * next(disturbance), gradient)
        return loss, gradient

    for step in range(STEPS):
        loss, gradient = evaluate(weights)
        if step % method.every == 0:
            e = perturbation(method, weights, gradient, shapes, step)
            _, gradient = evaluate(each(lambda w, x: w + x, weights, e))
            if method.center_descent:
                gradient = centralized(gradient, shapes, method.centralize)
        weights = base.step(weights, gradient)
        if step + 1 in RECORDED_STEPS:
            records.append((step + 1, loss, flatten(weights)))
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
    return max(abs(x - y) for (_, _, left), (_, _, right) in zip(a[2], b[2]) for x, y in zip(left, right))


def check_runs(runs, problem):
    """Rounding must not grow to the tests' tolerance, and no two methods may look alike."""
    disturbance = noise(7)
    worst = max(largest_difference(r, run(r[0], r[1], problem, disturbance)) for r in runs)
    assert worst < 1e-12, f"rounding grows to {worst}"
    alike = min((largest_difference(a, b), a[:2], b[:2]) for a, b in combinations(runs, 2) if a[1] == b[1])
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
    runs = [run(method, base, problem) for method in METHODS for base in BASES]
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
