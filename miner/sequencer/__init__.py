"""The miner's side of the sequencer's wire: one client, and typed replies."""

from miner.sequencer.client import Aborted, Ack, Sequencer, Unauthorized
from miner.sequencer.replies import Reply

__all__ = ["Aborted", "Ack", "Reply", "Sequencer", "Unauthorized"]
