"""Stage download: from the catalogue to the sample table.

Takes what `download.datasets` names from the catalogue's folder, from `download.mirror` or from the network, verifies,
unpacks and imports it, leaves test images out of the training splits, and puts the base models beside it.

    python stages/download.py

Reads the section `download` of params.yaml; writes artifacts/download/.
"""

from pathlib import Path

import own_tree  # noqa: F401

from saliency_r1.data.download import download
from saliency_r1.params import Params
from saliency_r1.runtime.stage import run_stage


def main(params: Params) -> None:
    """Import the data sets that the parameters name."""
    table = download(params.download, root=Path.cwd(), out=Path("artifacts/download"))
    for (dataset, split), rows in sorted(table.group_by("dataset", "split")):
        print(f"{dataset}/{split}: {len(rows)} samples")


if __name__ == "__main__":
    run_stage(main)
