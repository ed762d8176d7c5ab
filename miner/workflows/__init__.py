"""The workflow library: manifest and graph of each workflow; checks a task's parameters and fills the graph.

Promises: a task is data. It sets constants inside declared bounds, and reaches no node, class, link or file that the
workflow's author did not write down.
Never: I/O, but for reading the folders once.
"""

from miner.workflows.library import Checked, Library, Workflow, load_library
from miner.workflows.manifest import Limit, Manifest, Model, Needs, Output

__all__ = [
    "Checked",
    "Library",
    "Limit",
    "Manifest",
    "Model",
    "Needs",
    "Output",
    "Workflow",
    "load_library",
]
