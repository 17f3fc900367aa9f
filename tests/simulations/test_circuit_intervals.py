"""How often the intervals of circuits hold the truth: by simulation, with known truth.

    python -m pytest tests/simulations/test_circuit_intervals.py -m slow -s

The completeness gap is a mean over cuts of absolute values of means over pairs: noise alone makes it larger
than zero. Faithfulness by size and its area are ratios of means over pairs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from interp.mediation.circuits.controls import Knockouts
from interp.mediation.circuits.curve import Curve
from interp.mediation.mediators import Mediator
from tests.simulations.test_coverage import COUNTS, SHAPES, sizes

pytestmark = pytest.mark.slow

REPEATS, TOTAL, LEAST = 300, 4.0, 0.92
GAPS: dict[str, tuple[float, ...]] = {
    "no gap": (0.0,) * 5,
    "one cut of five": (0.8, 0.0, 0.0, 0.0, 0.0),
    "small in every cut": (0.1,) * 5,
    "large in every cut": (1.0,) * 5,
    "of both signs": (0.6, -0.6, 0.3, -0.3, 0.0),
    "one cut": (0.5,),
}
"""Difference between circuit and model after each cut, in units of the metric."""
Noise = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
NOISES: dict[str, Noise] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "skewed": lambda rng, shape: rng.exponential(size=shape) - 1,
}


def drawn(
    gaps: tuple[float, ...], noise: Noise, shape: str, count: int, rng: np.random.Generator
) -> tuple[Knockouts, np.ndarray, list[str]]:
    """Cuts whose pairs differ by group, by what all cuts share and by chance, about as much each."""
    codes = np.repeat(np.arange(count), sizes(count, shape, rng))
    cuts = len(gaps)
    own = noise(rng, (cuts, count))[:, codes] + noise(rng, (count,))[codes] + noise(rng, (cuts, len(codes)))
    model = 2.0 + rng.normal(size=(cuts, len(codes)))
    whole = TOTAL + noise(rng, (count,))[codes] + noise(rng, (len(codes),))
    ends = np.stack([np.zeros(len(codes)), whole], axis=1)
    circuit = model + np.array(gaps)[:, None] + 0.5 * own
    return Knockouts((1,) * cuts, circuit, model), ends, [str(code) for code in codes]


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("name", GAPS)
def test_the_completeness_gap_holds_the_truth(name: str, noise: str) -> None:
    truth = float(np.mean(np.abs(GAPS[name])))
    short = []
    for shape in SHAPES:
        for count in COUNTS:
            rng = np.random.default_rng(count)
            held: list[tuple[bool, bool, float]] = []
            for _ in range(REPEATS):
                found, ends, groups = drawn(GAPS[name], NOISES[noise], shape, count, rng)
                absolute, share = found.gap(ends, groups, 0)
                inside = absolute.interval.contains(truth), share.interval.contains(truth / TOTAL)
                held.append((*inside, share.interval.high - share.interval.low))
            covered, width = np.mean([row[:2] for row in held], axis=0), np.median([row[2] for row in held])
            errors = 1.96 * np.sqrt(covered * (1 - covered) / REPEATS)
            print(
                f"{name:20} {noise:7} {shape:8} {count:4} groups: units {covered[0]:6.1%} "
                f"+- {errors[0]:.1%}, share {covered[1]:6.1%} +- {errors[1]:.1%}, its width {width:.3f}"
            )
            if (covered + errors < LEAST).any():
                short.append(f"{shape}, {count} groups: {covered[0]:.1%} and {covered[1]:.1%}")
    assert not short, short


STEPS, SHARES = (0, 1, 2, 4, 8, 16), (0.0, 0.02, 0.3, 0.8, 1.0, 1.0)
"""Sizes of circuits, and what they keep."""


def curve_of(noise: Noise, shape: str, count: int, rng: np.random.Generator) -> Curve:
    """Runs that keep these shares of each pair's total effect, and differ by group and by chance."""
    codes = np.repeat(np.arange(count), sizes(count, shape, rng))

    def spread(size: float) -> np.ndarray:
        return size * (noise(rng, (count,))[codes] + noise(rng, (len(codes),)))

    none = spread(0.5) - 2
    total = TOTAL + spread(0.7)
    inner = [none + share * total + spread(0.3) for share in SHARES[1:-1]]
    return Curve(
        sizes=STEPS,
        faithfulness=np.array(SHARES),
        total=STEPS[-1],
        order=tuple(Mediator.parse(f"head.0.{at}") for at in range(STEPS[-1])),
        runs=np.stack([none, *inner, none + total]),
        ends=np.stack([none, none + total]),
        groups=tuple(map(str, codes)),
    )


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("shape", SHAPES)
def test_faithfulness_by_size_and_its_area_hold_the_truth(noise: str, shape: str) -> None:
    repeats, short = 120, []
    for count in COUNTS[:2]:
        rng = np.random.default_rng(count)
        held: list[tuple[float, bool]] = []
        for _ in range(repeats):
            found = curve_of(NOISES[noise], shape, count, rng)
            if not found.no_share:
                table, area = found.table().iloc[1:-1], found.number("cpr")
                truth = np.array(SHARES[1:-1])
                inside = (table["low"] <= truth) & (table["high"] >= truth)
                held.append((float(inside.mean()), area.low <= found.cpr <= area.high))
        covered = np.mean(held, axis=0)
        errors = 1.96 * np.sqrt(covered * (1 - covered) / len(held))
        print(
            f"{noise:7} {shape:8} {count:4} groups: faithfulness {covered[0]:6.1%} +- {errors[0]:.1%}, "
            f"area {covered[1]:6.1%} +- {errors[1]:.1%}"
        )
        if (covered + errors < LEAST).any():
            short.append(f"{count} groups: {covered[0]:.1%} and {covered[1]:.1%}")
    assert not short, short
