"""How long a search takes that waits for the slowest of n servers, with and without a second try at a replica.

If one server answers within t with probability F(t), all n do with F(t)^n. A hedged question is asked again at a
replica after h and takes whichever answer is first: 1 - F is then (1 - F(t)) (1 - F(t - h)). Servers are taken to be
slow independently of each other; what makes all slow at once (one network, one processor) is not in it.

Source: Dean and Barroso, The Tail at Scale, CACM 56(2), 2013.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import erf, log, sqrt
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput

_Z99 = 2.3263478740408408
HEDGE_AT = 0.95
"""The share of one server's answers that come before a second one is asked."""


class Latency(Protocol):
    """How long one server takes."""

    def within(self, ms: float) -> float:
        """The share of its answers that come within so many milliseconds."""
        ...

    def most_ms(self) -> float:
        """A time that (nearly) all answers come within."""
        ...


@dataclass(frozen=True, slots=True)
class LogNormal:
    """Told by its median and its 99th percentile, in milliseconds."""

    p50_ms: float
    p99_ms: float

    def __post_init__(self) -> None:
        if not 0 < self.p50_ms < self.p99_ms <= 1e7:
            raise BadInput(
                f"latency is {self.p50_ms:g},{self.p99_ms:g}", hint="median and 99th percentile in ms, like 2,10"
            )

    @property
    def sigma(self) -> float:
        """Of the logarithm."""
        return log(self.p99_ms / self.p50_ms) / _Z99

    def within(self, ms: float) -> float:
        """By the normal distribution of the logarithm."""
        if ms <= 0:
            return 0.0
        return 0.5 * (1 + erf(log(ms / self.p50_ms) / self.sigma / sqrt(2)))

    def most_ms(self) -> float:
        """Eight standard deviations out."""
        return self.p50_ms * float(np.exp(8 * self.sigma))

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Times in milliseconds."""
        return rng.lognormal(log(self.p50_ms), self.sigma, shape)


class Measured:
    """As it was measured: the share of ``times`` (ms) that are no longer, between two of them by a straight line."""

    def __init__(self, times: Sequence[float]) -> None:
        if not times:
            raise BadInput("no times were measured")
        self._times = np.sort(np.asarray(times, np.float64))
        self._shares = (np.arange(len(times)) + 1) / len(times)

    def within(self, ms: float) -> float:
        """By interpolation."""
        return float(np.interp(ms, self._times, self._shares, left=0.0))

    def most_ms(self) -> float:
        """The longest that was measured."""
        return float(self._times[-1])


@dataclass(frozen=True, slots=True)
class Hedged:
    """Asked again, at a replica as fast, when there is no answer after ``after_ms``."""

    one: Latency
    after_ms: float

    def within(self, ms: float) -> float:
        """Whichever answers first."""
        return 1 - (1 - self.one.within(ms)) * (1 - self.one.within(ms - self.after_ms))

    def most_ms(self) -> float:
        """No longer than without."""
        return self.one.most_ms()


def quantile(latency: Latency, share: float, servers: int = 1) -> float:
    """The time within which a search that waits for ``servers`` of them has a ``share`` of its answers, in ms."""
    wanted = share ** (1 / servers)
    low, high = 0.0, latency.most_ms()
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (low, middle) if latency.within(middle) >= wanted else (middle, high)
    return high


def hedged(latency: Latency) -> Hedged:
    """Asked again once ``HEDGE_AT`` of the answers would be there: one question in twenty is asked twice."""
    return Hedged(latency, quantile(latency, HEDGE_AT))
