"""All tables of hostile inputs in one. A newcomer adds a line to one of them, and nothing else."""

from __future__ import annotations

from tests.system.hostile import addresses, answers, data_urls, pictures, targets
from tests.system.hostile.cases import Case, Run

TABLE: dict[str, tuple[Case, Run]] = {
    f"{area}: {case.name}": (case, module.run)
    for area, module in (
        ("address", addresses),
        ("answer", answers),
        ("data URL", data_urls),
        ("picture", pictures),
        ("upload target", targets),
    )
    for case in module.ROWS
}
