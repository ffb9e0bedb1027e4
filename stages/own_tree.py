"""Imported by every stage before the package: `saliency_r1` is then that of the stage's tree, whatever is installed.

A queued experiment runs in a copy of the project, in which the code is as it was when it was queued. What is installed
in place is the workspace's code, which goes on changing. Processes that a stage starts inherit the search path.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
