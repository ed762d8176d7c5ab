from __future__ import annotations

import pytest

from miner.machine.sizes import gb


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "?"),
        (0, "0.0 GB"),
        (1_500_000, "1.5 MB"),
        (49_999_999, "50.0 MB"),
        (50_000_000, "0.1 GB"),
        (2.4e9, "2.4 GB"),
    ],
)
def test_a_size_is_in_gb_or_mb(size, text):
    assert gb(size) == text
