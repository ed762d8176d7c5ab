"""Faults on demand: which request is to go wrong, and how. A rule is forgotten when the process ends."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tests.support.devnet.routes import ROUTES

Action = Literal["fail", "hang", "reset", "garbage", "latency", "cut", "drop_reply", "truncate"]
"""
fail        reply with `status` and `headers`
hang        never reply; close after `seconds`, if given
reset       reset the TCP connection
garbage     reply 200 with a body that is not JSON
latency     wait `seconds`, then go on as if nothing had happened
cut         read the first `bytes` of an upload (half of it by default), then reset
drop_reply  act, then close without a reply
truncate    act, then send the first `bytes` of the reply's body (half of it by default), and close
"""

_AFTER: frozenset[Action] = frozenset({"drop_reply", "truncate"})


class Rule(BaseModel):
    """One rule, as control takes it."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    action: Action
    routes: Annotated[list[str], Field(min_length=1)] = list(ROUTES)
    times: Annotated[int, Field(ge=1)] | None = None  # None: until it is cleared
    act: bool = False  # carry the call out before fail, hang, reset or garbage: its reply gets lost
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    status: Annotated[int, Field(ge=400, le=599)] = 500
    headers: dict[str, str] = Field(default_factory=dict)  # such as Retry-After
    bytes: Annotated[int, Field(ge=0)] | None = None

    @property
    def after(self) -> bool:
        """Whether the call is carried out before it goes wrong."""
        return self.act or self.action in _AFTER

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        unknown = [route for route in self.routes if route not in ROUTES]
        if unknown:
            raise ValueError(f"unknown route {unknown[0]}; use {', '.join(ROUTES)}")
        if self.act and self.action in ("latency", "cut"):
            raise ValueError(f"{self.action} does not act first")
        if self.action == "latency" and self.seconds is None:
            raise ValueError("latency needs seconds")
        return self


class Faults:
    """The rules in force, in the order in which they were given; the first that is for a route wins."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._hits: list[int] = []

    def add(self, rules: Iterable[Rule]) -> None:
        for rule in rules:
            self._rules.append(rule)
            self._hits.append(0)

    def clear(self) -> None:
        self._rules.clear()
        self._hits.clear()

    def listed(self) -> list[dict[str, Any]]:
        """Each rule with how often it was applied."""
        listed = zip(self._rules, self._hits, strict=True)
        return [{"hits": hits, **rule.model_dump(exclude_defaults=True)} for rule, hits in listed]

    def take(self, route: str) -> Rule | None:
        """The rule that spoils this request, counted."""
        for number, rule in enumerate(self._rules):
            if route in rule.routes and (rule.times is None or self._hits[number] < rule.times):
                self._hits[number] += 1
                return rule
        return None
