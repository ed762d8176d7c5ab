"""Whatever a sequencer says, in any bytes: a task that the journal keeps as it is, or a clean refusal."""

from __future__ import annotations

from pathlib import Path

from hypothesis import example, given, settings

from tests.campaigns.fuzz.replies import Replies
from tests.support.strategies import replies

NOTHING = b"{}"
WRONG = b'{"task_id": "1", "task_type": "txt2img", "workflow_id": "none", "upload_url": "https://example.com/1"}'


def test_any_reply_is_a_task_that_the_journal_keeps_or_a_clean_refusal(tmp_path: Path) -> None:
    with Replies(tmp_path) as tried:

        @settings(max_examples=120)
        @example(NOTHING)
        @example(WRONG)
        @given(replies(tried.library, tried.ids))
        def take(reply: bytes) -> None:
            tried.take(reply)

        take()
        assert tried.ends.keys() >= {"refused", "nothing to do", "wrong task", "task"}, "a dull round"
