"""DVC as the child of a flow, with which it ends: `python flows/child.py <the flow's process> repro ...`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from dvc.cli import main

from saliency_r1.runtime.parent import die_with_parent

if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
