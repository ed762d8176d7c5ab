"""Faults on demand: which request is to go wrong, and how.

A rule names routes and an action, how often it applies (`times`, `probability` with a `seed`), and which requests it
is for. It promises that the same rules and the same requests go wrong in the same way. Rules are forgotten when the
process ends. Nothing here touches a socket; `tampering` carries the actions out.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tests.support.devnet.routes import ROUTES

Action = Literal["fail", "hang", "reset", "garbage", "latency", "cut", "drop_reply", "truncate", "trickle"]
"""
fail        reply with `status` and `headers`
hang        never reply; close after `seconds`, where given
reset       reset the TCP connection
garbage     reply 200 with a body that is not JSON: `body`
latency     wait `seconds`, then go on as if nothing had happened
cut         read the first `bytes` of an upload (half of it by default), then reset
drop_reply  act, then close without a reply
truncate    act, then send the first `bytes` of the reply's body (half of it by default), and close
trickle     act, then send the reply's body `bytes` (1) at a time, with `seconds` between
"""

_AFTER: frozenset[Action] = frozenset({"drop_reply", "truncate", "trickle"})
_ACTING: frozenset[Action] = _AFTER | {"fail", "hang", "reset", "garbage"}


class Rule(BaseModel):
    """One rule, as control takes it."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    action: Action
    routes: Annotated[list[str], Field(min_length=1)] = list(ROUTES)
    times: Annotated[int, Field(ge=1)] | None = None  # None: for ever
    probability: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: int = 0

    task_id: str = ""  # only requests (or, after acting, replies) that name this task
    miner_id: str = ""  # only requests that name this miner
    reply_has: str = ""  # only replies with this text in them; the rule acts first then

    act: bool = False  # carry the call out before fail, hang, reset or garbage: its reply gets lost
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    status: Annotated[int, Field(ge=400, le=599)] = 500
    headers: dict[str, str] = Field(default_factory=dict)  # such as Retry-After
    body: str = "<html><body>502 Bad Gateway</body></html>"
    bytes: Annotated[int, Field(ge=0)] | None = None

    @property
    def after(self) -> bool:
        """Whether the call is carried out before it goes wrong."""
        return self.act or bool(self.reply_has) or self.action in _AFTER

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        unknown = [route for route in self.routes if route not in ROUTES]
        if unknown:
            raise ValueError(f"unknown route {unknown[0]}; use {', '.join(ROUTES)}")
        if self.after and self.action not in _ACTING:
            raise ValueError(f"{self.action} does not act first")
        if self.action in ("latency", "trickle") and self.seconds is None:
            raise ValueError(f"{self.action} needs seconds")
        return self


@dataclass(slots=True, eq=False)
class _Live:
    number: int
    rule: Rule
    dice: random.Random
    hits: int = 0

    @property
    def spent(self) -> bool:
        return self.rule.times is not None and self.hits >= self.rule.times

    def fires(self) -> bool:
        """Throw the dice for a request that matches, and count."""
        if self.spent or self.dice.random() >= self.rule.probability:
            return False
        self.hits += 1
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """What is known of a request when rules are matched. `sent` is its path, query and JSON body."""

    route: str
    sent: bytes = field(repr=False)
    replied: bytes | None = field(default=None, repr=False)  # the reply's body, once the call was carried out


class Faults:
    """The rules in force, in the order in which they were given; the first that fires wins."""

    def __init__(self) -> None:
        self._rules: list[_Live] = []
        self._count = 0

    def add(self, rules: Iterable[Rule]) -> None:
        for rule in rules:
            self._count += 1
            self._rules.append(_Live(self._count, rule, random.Random(rule.seed)))

    def clear(self) -> None:
        self._rules.clear()

    def listed(self) -> list[dict[str, Any]]:
        """Each rule with how often it fired."""
        return [{"number": r.number, "hits": r.hits, **r.rule.model_dump(exclude_defaults=True)} for r in self._rules]

    def concern(self, route: str) -> bool:
        """Whether any rule that is left is about this route."""
        return any(route in live.rule.routes and not live.spent for live in self._rules)

    def before(self, exchange: Exchange) -> Rule | None:
        """The rule that spoils this request before it is carried out."""
        return self._first(live for live in self._matching(exchange) if not live.rule.after)

    def may_follow(self, exchange: Exchange) -> bool:
        """Whether a rule may spoil the reply, so that it must be held back until it is known."""
        return any(live.rule.after for live in self._matching(exchange))

    def after(self, exchange: Exchange) -> Rule | None:
        """The rule that spoils the reply of this request, which was carried out."""
        return self._first(live for live in self._matching(exchange) if live.rule.after)

    def _matching(self, exchange: Exchange) -> Sequence[_Live]:
        return [live for live in self._rules if not live.spent and _matches(live.rule, exchange)]

    @staticmethod
    def _first(lives: Iterable[_Live]) -> Rule | None:
        return next((live.rule for live in lives if live.fires()), None)


def _matches(rule: Rule, exchange: Exchange) -> bool:
    if exchange.route not in rule.routes or rule.miner_id.encode() not in exchange.sent:
        return False
    if exchange.replied is None:
        # A rule about the reply can only be told from it later.
        return rule.after or rule.task_id.encode() in exchange.sent
    said = exchange.sent + exchange.replied
    return rule.task_id.encode() in said and rule.reply_has.encode() in exchange.replied
