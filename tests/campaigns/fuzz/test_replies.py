"""Whatever a sequencer says, in any bytes: an answer or a clean refusal, and no graph but ours with other values."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings

from tests.campaigns.fuzz.way import way_in
from tests.support.strategies import replies


def test_any_reply_ends_in_an_answer_or_a_clean_refusal(tmp_path: Path) -> None:
    with way_in(tmp_path) as way:

        @settings(max_examples=120)
        @given(replies(way.library, way.ids))
        def take(reply: bytes) -> None:
            way.take(reply)

        take()
        assert way.tried.keys() >= {"refused reply", "nothing to do", "refused task", "graph"}, "a dull round"
