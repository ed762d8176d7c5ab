"""The workflow library: checks a task's parameters against a manifest, and fills the graph.

Promises: a task is data. It sets constants within declared bounds, and reaches no other node, class, link or file.
Never: I/O, except reading the folders once.
"""

from miner.workflows.library import Checked, Library, Workflow, load_library
from miner.workflows.manifest import Limit, Manifest, Model, Needs, Output, Variant
from miner.workflows.variants import Card, Ranking, ranking, variant_of

__all__ = [
    "Card",
    "Checked",
    "Library",
    "Limit",
    "Manifest",
    "Model",
    "Needs",
    "Output",
    "Ranking",
    "Variant",
    "Workflow",
    "load_library",
    "ranking",
    "variant_of",
]
