"""Stage model: the folder that one hands on, from what the other stages wrote.

    python stages/model.py

Reads artifacts/download/, artifacts/cgpo/adapter, artifacts/metrics/ and params.yaml; writes artifacts/model/.
"""

from pathlib import Path

import own_tree  # noqa: F401

from saliency_r1.params import Params
from saliency_r1.registry.package import package
from saliency_r1.runtime.files import atomic_folder
from saliency_r1.runtime.stage import run_stage


def main(params: Params) -> None:
    """Put the folder together."""
    with atomic_folder("artifacts/model") as folder:
        package(Path("artifacts"), Path("params.yaml"), params.model.title, folder)


if __name__ == "__main__":
    run_stage(main)
