"""Prometheus' queries: what they ask for, and what they give on two scrapes of a run.

It knows the part of the language that our dashboards and alert rules use, and
refuses the rest. A range such as ``[5m]`` is the time between the two scrapes.
"""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

import promql_parser
from prometheus_client.parser import text_string_to_metric_families
from promql_parser import (
    AggregateExpr,
    BinaryExpr,
    Call,
    MatchOp,
    MatrixSelector,
    NumberLiteral,
    ParenExpr,
    VectorSelector,
)

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]


class Asked(NamedTuple):
    """A metric that a query names, and what it wants of its labels."""

    name: str
    matchers: list[tuple[str, bool, str]]
    """Label, whether the value is a regular expression, value."""


def asked(expression: str) -> tuple[list[Asked], set[str]]:
    """All metrics of a query, and the labels it groups by; raises for a query that is wrong."""
    metrics: list[Asked] = []
    grouped: set[str] = set()
    for node in _walk(promql_parser.parse(expression)):
        if isinstance(node, VectorSelector):
            found = [(m.name, m.op == MatchOp.Re, m.value) for m in node.matchers.matchers]
            metrics.append(Asked(str(node.name), found))
        elif isinstance(node, AggregateExpr) and node.modifier:
            grouped |= set(node.modifier.labels)
    return metrics, grouped


def _walk(node: Any) -> Iterator[Any]:
    yield node
    below = [getattr(node, name, None) for name in ("expr", "lhs", "rhs", "vector_selector")]
    for child in [*below, *getattr(node, "args", [])]:
        if child is not None:
            yield from _walk(child)


class Scrape(NamedTuple):
    """What /metrics said at a time, in seconds."""

    at: float
    samples: dict[str, Vector]


def scrape(at: float, *expositions: bytes, up: bool = True) -> Scrape:
    """Join what several processes of a run expose; `up` is Prometheus' own word of them."""
    found: dict[str, Vector] = defaultdict(dict)
    for number, text in enumerate(expositions):
        where = {"job": "dsql-outbox", "instance": str(number)}
        found["up"][frozenset(where.items())] = float(up)
        for family in text_string_to_metric_families(text.decode()):
            for sample in family.samples:
                found[sample.name][frozenset((sample.labels | where).items())] = sample.value
    return Scrape(at, found)


def evaluate(expression: str, first: Scrape, last: Scrape) -> Vector:
    """The query's value at the last scrape; empty if there is none."""
    found = _Evaluation(first, last).of(promql_parser.parse(expression))
    return {frozenset(): found} if isinstance(found, float) else found


_JOIN: Final[dict[str, Callable[[Iterable[float]], float]]] = {"sum": sum, "max": max, "min": min}
_COMPARE: Final[dict[str, Callable[[float, float], bool]]] = {
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
    "==": lambda a, b: a == b,
}
_COUNT: Final[dict[str, Callable[[float, float], float]]] = {
    "/": lambda a, b: a / b if b else math.nan,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
}


class _Evaluation:
    def __init__(self, first: Scrape, last: Scrape) -> None:
        self._first, self._last = first, last

    def of(self, node: Any) -> Any:
        match node:
            case NumberLiteral():
                return float(node.val)
            case ParenExpr():
                return self.of(node.expr)
            case VectorSelector():
                return self._select(node, self._last)
            case AggregateExpr():
                return self._aggregate(node)
            case BinaryExpr():
                return self._binary(node)
            case Call():
                return self._call(node)
            case _:
                raise NotImplementedError(type(node).__name__)

    def _select(self, node: VectorSelector, source: Scrape) -> Vector:
        wanted = asked(str(node))[0][0]
        return {
            labels: value
            for labels, value in source.samples.get(wanted.name, {}).items()
            if all(
                re.fullmatch(text if is_pattern else re.escape(text), dict(labels).get(name, ""))
                for name, is_pattern, text in wanted.matchers
            )
        }

    def _call(self, node: Call) -> Vector:
        (*_, argument) = node.args
        match node.func.name:
            case "rate":
                return self._increase(argument, self._last.at - self._first.at)
            case "increase":
                return self._increase(argument, 1.0)
            case "absent":
                return {} if self.of(argument) else {frozenset(): 1.0}
            case "histogram_quantile":
                return _quantiles(float(node.args[0].val), self.of(argument))
            case "last_over_time":
                return self._select(argument.vector_selector, self._of_range(argument))
            case "vector":
                return {frozenset(): float(argument.val)}
            case name:
                raise NotImplementedError(name)

    def _of_range(self, node: MatrixSelector) -> Scrape:
        """The first scrape is what was there before the range; `offset` asks for that."""
        return self._first if node.vector_selector.offset else self._last

    def _increase(self, node: MatrixSelector, seconds: float) -> Vector:
        before = self._select(node.vector_selector, self._first)
        after = self._select(node.vector_selector, self._last)
        return {key: (value - before.get(key, 0.0)) / seconds for key, value in after.items()}

    def _aggregate(self, node: AggregateExpr) -> Vector:
        kept = set(node.modifier.labels) if node.modifier else set()
        groups: dict[Labels, list[float]] = defaultdict(list)
        for labels, value in self.of(node.expr).items():
            groups[_kept(labels, kept)].append(value)
        return {labels: _JOIN[str(node.op)](values) for labels, values in groups.items()}

    def _binary(self, node: BinaryExpr) -> Vector:
        op, left, right = str(node.op), self.of(node.lhs), self.of(node.rhs)
        if op == "and":
            return _both(left, right, set(node.modifier.matching.labels))
        if op == "or":
            return {**right, **left}
        if op == "unless":
            return {key: value for key, value in left.items() if key not in right}
        if isinstance(left, float):
            return _COUNT[op](left, right)
        other = dict.fromkeys(left, right) if isinstance(right, float) else right
        pairs = [(key, value, other[key]) for key, value in left.items() if key in other]
        if op in _COMPARE:
            return {key: a for key, a, b in pairs if _COMPARE[op](a, b)}
        return {key: _COUNT[op](a, b) for key, a, b in pairs}


def _both(left: Vector, right: Vector, on: set[str]) -> Vector:
    """What of `left` has a partner with the same labels `on`."""
    partners = {_kept(labels, on) for labels in right}
    return {labels: value for labels, value in left.items() if _kept(labels, on) in partners}


def _kept(labels: Labels, names: set[str]) -> Labels:
    return frozenset(pair for pair in labels if pair[0] in names)


def _quantiles(share: float, buckets: Vector) -> Vector:
    """As Prometheus does it: linear within the bucket, the last bound for what is beyond."""
    groups: dict[Labels, list[tuple[float, float]]] = defaultdict(list)
    for labels, count in buckets.items():
        rest = frozenset(pair for pair in labels if pair[0] != "le")
        groups[rest].append((float(dict(labels)["le"]), count))
    return {labels: _quantile(share, sorted(found)) for labels, found in groups.items()}


def _quantile(share: float, buckets: list[tuple[float, float]]) -> float:
    wanted = share * buckets[-1][1]
    if not buckets[-1][1]:
        return math.nan
    low = below = 0.0
    for bound, count in buckets:
        if count >= wanted:
            return (
                low
                if math.isinf(bound)
                else low + (bound - low) * (wanted - below) / (count - below)
            )
        low, below = bound, count
    return low
