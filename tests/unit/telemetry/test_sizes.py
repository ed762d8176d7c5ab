from __future__ import annotations

import pytest

from miner.telemetry.sizes import gb


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "?"),
        (0, "0.0 GB"),
        (1_500_000, "1.5 MB"),
        (131_072, "131 KB"),
        (50_000_000, "50 MB"),
        (999_949_999, "999.9 MB"),
        (10**9, "1.0 GB"),
        (2.4e9, "2.4 GB"),
    ],
)
def test_a_size_is_in_gb_or_mb(size, text):
    assert gb(size) == text
