"""Ignored parameters: counted by name, whatever strangers send."""

from __future__ import annotations

import pytest

from miner.telemetry import metrics


@pytest.fixture(autouse=True)
def nothing_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process: other tests count here, too."""
    monkeypatch.setattr(metrics, "_names", set())
    metrics.IGNORED.clear()


def counted() -> dict[str, float]:
    [family] = metrics.IGNORED.collect()
    return {one.labels["name"]: one.value for one in family.samples}


def test_names_are_counted_and_no_text_is_among_them() -> None:
    assert metrics.count_ignored(["cfg_scale", "a secret wish", "", "k" * 33, "é"]) == ["cfg_scale", *["other"] * 4]
    assert counted() == {"cfg_scale": 1.0, "other": 4.0}


def test_strangers_cannot_create_series_without_end() -> None:
    names = [f"p{number}" for number in range(200)]
    assert metrics.count_ignored(names) == names  # the log has them all
    assert len(counted()) <= metrics.MOST_NAMES + 1
