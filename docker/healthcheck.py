#!/usr/bin/env python3
"""The image's HEALTHCHECK: asks the miner's /healthz. Exit code 0: healthy; 1: not."""

import os
import sys
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, build_opener

PORT = os.environ.get("XALORA_STATUS_PORT") or "8199"

try:
    with build_opener(ProxyHandler({})).open(f"http://127.0.0.1:{PORT}/healthz", timeout=8) as reply:
        sys.stdout.write(reply.read().decode())
except HTTPError as error:
    sys.exit(error.read().decode())
except URLError as error:
    sys.exit(f"no answer at port {PORT}: {error.reason}")
