"""The harness: measures contenders by turns, A B A B, and keeps every value with its round.

Used by each question; the values are held against the targets in :mod:`tests.benchmarks.targets`.
Ratios are taken between values of the same round, so that a machine that slows down for a while
slows both sides; what is reported is their median, with the spread.
"""

from __future__ import annotations

import math
import statistics
import traceback
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.benchmarks.processes import Broken, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tests.benchmarks.processes import Driver

DANGAD = "dangad"
"""The name of the contender that the targets are about."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A quantity that a question measures."""

    text: str
    """What it is, as a table's head."""
    unit: str
    """``s``, ``1/s``, ``B``, or nothing for a ratio."""


@dataclass(frozen=True, slots=True)
class Series:
    """One quantity of one contender: a value for each round."""

    contender: str
    measure: str
    text: str
    unit: str
    values: list[float]


@dataclass(slots=True)
class Findings:
    """What came of one question, as it stands in the result file."""

    series: list[Series] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    """Contenders that are not installed, and how to install them."""
    failed: dict[str, str] = field(default_factory=dict)
    """Contenders that gave a wrong answer or none, and what they said."""

    def values(self, contender: str, measure: str) -> list[float]:
        """The values of one quantity of one contender, none if it was not measured."""
        for series in self.series:
            if (series.contender, series.measure) == (contender, measure):
                return series.values
        return []

    def add(self, contender: str, key: str, measure: Measure, value: float) -> None:
        """Note the value of one more round."""
        values = self.values(contender, key)
        if not values:
            self.series.append(Series(contender, key, measure.text, measure.unit, values))
        values.append(value)

    def as_json(self) -> dict[str, Any]:
        """All of it in JSON's types."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Spread:
    """Where some values lie."""

    least: float
    lower: float
    median: float
    upper: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of one or more values."""
        if len(values) == 1:
            return cls(*[values[0]] * 5)
        lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
        return cls(min(values), lower, median, upper, max(values))


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of the values that so many percent of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


@dataclass(frozen=True, slots=True)
class Running:
    """A contender that runs."""

    driver: Driver
    """Its client, which is asked to do jobs."""
    parent: int
    """The process whose CPU time and memory matter."""
    stage: Stage
    """Where else it can be looked at."""
    concurrent: bool = True
    """Whether it can have more than one job in flight."""
    in_client: bool = False
    """Whether the parent is the driver itself."""


class Contender:
    """Something that does jobs, and can be started, stopped, and found not to be installed.

    All mutable state: the stage, from `start` to `stop`.
    """

    def __init__(
        self,
        name: str,
        boot: Callable[[Stage], Running],
        missing: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Remember how to start it.

        :param name: as the tables have it.
        :param boot: starts it on an empty stage, and waits until it is ready.
        :param missing: tells how to install what is not there; None if all is.
        """
        self.name = name
        self.available = missing
        self._boot = boot
        self._stage: Stage | None = None

    def start(self) -> Running:
        """Start it, and wait until it is ready.

        :raises Broken: it does not start; then nothing of it is left to stop.
        """
        stage = self._stage = Stage()
        try:
            return self._boot(stage)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all its processes; does nothing if there are none."""
        stage, self._stage = self._stage, None
        if stage is not None:
            stage.close()


class Bench:
    """The asking of one question."""

    def __init__(
        self,
        measures: Mapping[str, Measure],
        quick: bool = False,
        say: Callable[[str], None] = print,
    ) -> None:
        """Begin with no findings.

        :param measures: the quantities that will be measured, by their keys.
        :param quick: whether small sizes will do.
        :param say: where to tell how far it is.
        """
        self.findings = Findings()
        self._measures = measures
        self._quick = quick
        self._say = say

    def size(self, usual: float, quick: float) -> float:
        """How many, or how long: the first number, or the second if it is to be quick."""
        return quick if self._quick else usual

    def compare(
        self,
        rounds: int,
        contenders: Iterable[Contender],
        measure: Callable[[Running], Mapping[str, float]],
    ) -> None:
        """Measure the contenders by turns.

        Each is started for its turn and stopped after it, so that it has the machine to itself.
        """
        runs: dict[str, Callable[[], Mapping[str, float]]] = {}
        for contender in contenders:
            install = contender.available()
            if install is None:
                runs[contender.name] = partial(_on_stage, contender, measure)
            else:
                self.skip(contender.name, install)
        self.interleave(rounds, runs)

    def interleave(
        self, rounds: int, runs: Mapping[str, Callable[[], Mapping[str, float]]]
    ) -> None:
        """Call each of the functions in turn, for so many rounds, and note what they return.

        One that fails is not called again; the others go on.
        """
        for number in range(1, rounds + 1):
            for name, run in runs.items():
                if name in self.findings.failed:
                    continue
                self._say(f"  round {number} of {rounds}: {name}")
                try:
                    measured = run()
                except Broken as error:
                    self.fail(name, str(error))
                except Exception:  # noqa: BLE001 - a peer's trouble does not end the others' turns
                    self.fail(name, traceback.format_exc())
                else:
                    for key, value in measured.items():
                        self.findings.add(name, key, self._measures[key], value)

    def skip(self, name: str, install: str) -> None:
        """Leave a contender out that is not installed."""
        self.findings.skipped[name] = install
        self._say(f"  {name} is skipped; to have it: {install}")

    def fail(self, name: str, reason: str) -> None:
        """Leave a contender out from now on."""
        self.findings.failed[name] = reason
        self._say(f"  {name} failed: {reason}")


def _on_stage(
    contender: Contender, measure: Callable[[Running], Mapping[str, float]]
) -> Mapping[str, float]:
    running = contender.start()
    try:
        return measure(running)
    finally:
        contender.stop()
