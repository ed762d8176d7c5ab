"""`python -m tests.support.devnet`: as `xalora-miner devnet`, with control, counters and faults, and perhaps an S3."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from miner.devnet.options import DevnetOptions
from miner.devnet.serve import run_devnet
from tests.support.devnet.build import building

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, default=0)
parser.add_argument("--leases", type=int, default=1)
parser.add_argument("--state", type=Path)
parser.add_argument("--s3", default="", help="URL of the S3 behind /results")
parser.add_argument("--credential", type=json.loads, default={}, help="what `s3` tasks hand out, as JSON")
parser.add_argument("--target", default="presigned", help="what tasks bring that name none")
given = parser.parse_args()
run_devnet(
    DevnetOptions(
        port=given.port,
        leases=given.leases,
        state=given.state,
        credential=given.credential,
        target=given.target,
    ),
    on_ready=lambda url: print(f"devnet is ready: XALORA_WORKFLOW_URL={url}", flush=True),
    build=building(s3=given.s3),
)
