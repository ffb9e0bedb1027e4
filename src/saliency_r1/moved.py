"""Modules under their names of version 0.1, so that code written for it goes on working: `saliency_r1.predict`.

The old name is the same module object, imported when it is first asked for, with a `DeprecationWarning`.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "saliency_r1.evaluate": "saliency_r1.evaluation.split",
    "saliency_r1.files": "saliency_r1.runtime.files",
    "saliency_r1.launch": "saliency_r1.runtime.launch",
    "saliency_r1.predict": "saliency_r1.prediction.predictor",
    "saliency_r1.processes": "saliency_r1.runtime.processes",
    "saliency_r1.stage": "saliency_r1.runtime.stage",
    "saliency_r1.training.adapter": "saliency_r1.training.optimiser",
    "saliency_r1.training.rollouts": "saliency_r1.rollout.environment",
}


class _Moved(MetaPathFinder, Loader):
    """Finds a module under its old name and loads the new one."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        """Put the module under its new name in the place of the empty one under its old name."""
        new = MOVED[module.__name__]
        warnings.warn(f"{module.__name__} has moved to {new}", DeprecationWarning, stacklevel=2)
        sys.modules[module.__name__] = importlib.import_module(new)


def install() -> None:
    """Let imports find the old names; the second call changes nothing."""
    if not any(isinstance(finder, _Moved) for finder in sys.meta_path):
        sys.meta_path.append(_Moved())
