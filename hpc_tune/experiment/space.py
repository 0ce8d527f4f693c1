"""The search space as it is written in an experiment file.

A one-key table whose key names a domain, such as ``{ loguniform = [1e-4, 1e-1] }``, is a domain of Ray Tune with
the same name and positional arguments. Any other table is a nested space, and anything else a constant. A domain that
would pass for either, beside other keys or inside a list, is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from hpc_tune.errors import Fault
from hpc_tune.experiment.faults import Faults
from hpc_tune.experiment.nearest import nearest

__all__ = ["DOMAINS", "Domain", "SpaceFaults", "parse_space"]


@dataclass(frozen=True)
class Domain:
    """A set of values to search, named and parametrised as ``ray.tune`` does it."""

    kind: str
    args: tuple[Any, ...]

    def as_written(self) -> dict[str, list[Any]]:
        """Return the table that an experiment file would hold."""
        return {self.kind: list(self.args)}


class SpaceFaults(Faults):
    """All faults of one search space."""


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _bounds(args: Sequence[Any], *, log: bool, integer: bool) -> str | None:
    lower, upper = args[0], args[1]
    if not (math.isfinite(lower) and math.isfinite(upper)):
        return f"bounds must be finite, got {lower} and {upper}"
    if integer and not (isinstance(lower, int) and isinstance(upper, int)):
        return f"bounds must be whole numbers, got {lower} and {upper}"
    if lower > upper:
        return f"bounds are the wrong way round; write [{upper}, {lower}]"
    if lower == upper:
        return f"bounds are equal; write the constant {lower} instead"
    if log and lower <= 0:
        return f"a logarithmic domain cannot reach {lower}; use a lower bound above 0, such as 1e-6"
    return None


def _step(q: float) -> str | None:
    return None if q > 0 else f"the step q must be above 0, got {q}"


def _stepped(args: Sequence[Any], *, integer: bool) -> str | None:
    lower, upper, q = args[:3]
    if problem := _step(q):
        return problem
    if integer:
        return None if isinstance(q, int) else f"the step q must be a whole number, got {q}"
    if not all(math.isclose(bound / q, round(bound / q)) for bound in (lower, upper)):  # Ray refuses it
        return f"the bounds must be multiples of the step q; got [{lower}, {upper}] and {q}"
    return None


def _ranged(*, log: bool = False, integer: bool = False, step: bool = False) -> Callable[[Sequence[Any]], str | None]:
    """Return the check of a domain that is written ``[lower, upper]`` plus ``q`` and ``base`` where it has them."""
    names = ["lower", "upper", *(["q"] if step else [])]
    optional = ["base"] if log else []

    def check(args: Sequence[Any]) -> str | None:
        if not len(names) <= len(args) <= len(names) + len(optional):
            expected = ", ".join(names + [f"{name} (may be left out)" for name in optional])
            return f"expected [{expected}], got {list(args)}"
        if not all(_is_number(value) for value in args):
            return f"expected numbers, got {list(args)}"
        problem = _bounds(args, log=log, integer=integer) or (_stepped(args, integer=integer) if step else None)
        if problem is None and len(args) > len(names) and args[-1] <= 1:
            return f"the base must be above 1, got {args[-1]}"
        return problem

    return check


def _normal(args: Sequence[Any], *, step: bool) -> str | None:
    count = len(args)
    if (count != 3 if step else count > 2) or not all(_is_number(value) for value in args):
        return f"expected [mean, sd{', q' if step else ''}], got {list(args)}"
    if count >= 2 and args[1] <= 0:
        return f"the standard deviation must be above 0, got {args[1]}"
    return _step(args[2]) if step else None


def _values(args: Sequence[Any]) -> str | None:
    return None if args else "expected at least one value, got an empty list"


DOMAINS: Mapping[str, Callable[[Sequence[Any]], str | None]] = {
    "uniform": _ranged(),
    "quniform": _ranged(step=True),
    "loguniform": _ranged(log=True),
    "qloguniform": _ranged(log=True, step=True),
    "randn": lambda args: _normal(args, step=False),
    "qrandn": lambda args: _normal(args, step=True),
    "randint": _ranged(integer=True),
    "qrandint": _ranged(integer=True, step=True),
    "lograndint": _ranged(log=True, integer=True),
    "qlograndint": _ranged(log=True, integer=True, step=True),
    "choice": _values,
    "grid": _values,
}
"""Each domain with the check of its arguments: a sentence when they are wrong, else None."""


def parse_space(written: Mapping[str, Any], *, key: str = "space") -> dict[str, Any]:
    """Turn the tables of a file into domains, nested spaces and constants.

    Raises:
        SpaceFaults: naming every wrong entry by its dotted key below ``key``.
    """
    faults: list[Fault] = []
    space = {name: _parse(value, f"{key}.{name}", faults) for name, value in written.items()}
    if faults:
        raise SpaceFaults(faults)
    return space


def _parse(value: Any, key: str, faults: list[Fault]) -> Any:
    if not isinstance(value, Mapping):
        _refuse_inside(value, key, faults)
        return value
    if len(value) == 1:
        ((kind, args),) = value.items()
        if kind == "grid_search":  # Ray Tune's own spelling
            kind = "grid"
        if kind in DOMAINS:
            return _parse_domain(kind, args, key, faults)
        if isinstance(args, list) and (match := nearest(kind, DOMAINS, cutoff=0.75)) is not None:
            faults.append(Fault(key, f"unknown domain {kind!r}", f"did you mean {match!r}?"))
            return value
    for kind, args in value.items():
        if kind in DOMAINS and isinstance(args, list):
            others = ", ".join(name for name in value if name != kind)
            advice = f"write {{ {kind} = {args} }} alone, or rename the key if it is no domain"
            faults.append(Fault(key, f"the domain {kind} stands beside {others}", advice))
            return value
    return {name: _parse(inner, f"{key}.{name}", faults) for name, inner in value.items()}


def _refuse_inside(value: Any, key: str, faults: list[Fault]) -> None:
    """Find the first domain in a list: a trial would get it as it is written."""
    if (found := _domain_in(value)) is not None:
        problem = f"the domain {found} is inside a list, where it is not searched"
        faults.append(Fault(key, problem, "give it a key of its own, and have the trainable build the list"))


def _domain_in(value: Any) -> str | None:
    if isinstance(value, Mapping):
        kinds = [str(kind) for kind, args in value.items() if kind in DOMAINS and isinstance(args, list)]
        if kinds:
            return kinds[0]
        value = value.values()
    elif not isinstance(value, list | tuple):
        return None
    return next((found for inner in value if (found := _domain_in(inner)) is not None), None)


def _parse_domain(kind: str, args: Any, key: str, faults: list[Fault]) -> Domain:
    if not isinstance(args, list | tuple):
        faults.append(Fault(key, f"{kind} takes a list, got {args!r}", f"write {{ {kind} = [...] }}"))
        return Domain(kind, ())
    problem = DOMAINS[kind](args)
    if problem is not None:
        faults.append(Fault(key, f"{kind}: {problem}"))
    else:
        _refuse_inside(args, key, faults)
    return Domain(kind, tuple(args))
