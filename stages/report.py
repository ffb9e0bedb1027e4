"""Stage report: one page with the results, the curves, examples, the checks and where they come from.

    python stages/report.py

Reads what all stages before it have written; writes artifacts/report/: index.html (readable without a network),
results.md and overview.png.
"""

from pathlib import Path

import own_tree  # noqa: F401

from saliency_r1.params import Params
from saliency_r1.report.page import build
from saliency_r1.runtime.files import atomic_folder
from saliency_r1.runtime.stage import run_stage


def main(params: Params) -> None:
    """Build the page and say where it is."""
    artifacts = Path("artifacts")
    with atomic_folder(artifacts / "report") as folder:
        build(artifacts, folder, params)
    print(artifacts / "report" / "index.html")


if __name__ == "__main__":
    run_stage(main)
