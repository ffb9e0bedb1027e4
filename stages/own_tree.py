"""Imported by every stage before the package: `saliency_r1` is then that of the stage's tree, whatever is installed.

A queued experiment runs in a copy of the project, in which the code is as it was when it was queued. The package
installed in place is the workspace's code, which goes on changing. Processes that a stage starts inherit the
search path.

It also lets an interruption during the seconds of importing end in one line, as `run_stage` does from then on.
"""

import sys
from pathlib import Path
from types import TracebackType

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))


def _say_interrupted(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print(f"{Path(sys.argv[0]).stem} interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _say_interrupted
