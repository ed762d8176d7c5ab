"""Puts control, counters, faults and, where an S3 is given, the way to it around the product's application."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware

from miner.devnet.app import build_app
from miner.devnet.serve import Build
from miner.devnet.state import Devnet
from tests.support.devnet.control import VIOLATIONS, Control, record_violation
from tests.support.devnet.faults import Faults
from tests.support.devnet.tampering import Tampering
from tests.support.devnet.to_s3 import s3_routes
from tests.support.devnet.traffic import Recording, Traffic


def building(*, s3: str = "") -> Build:
    """How to build one. `s3` is the URL of the S3 that has the bucket of the options."""

    def build(devnet: Devnet) -> Starlette:
        devnet.db.execute(VIOLATIONS)
        traffic, faults = Traffic(), Faults()
        return build_app(
            devnet,
            routes=[*Control(traffic=traffic, faults=faults).routes(), *(s3_routes(s3) if s3 else ())],
            layers=[
                Middleware(Recording, traffic=traffic),
                Middleware(Tampering, faults=faults, stopping=devnet.bell.stopping),
            ],
            refused=record_violation,
        )

    return build
