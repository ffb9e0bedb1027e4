"""Several policies on one base: adapters are put on and taken off again, the weights of the base are in memory once."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from saliency_r1.policy.model import Policy
from saliency_r1.policy.network import put_on


class Policies:
    """What was trained from the base in `folder`, one at a time; `loading` are further arguments of `Policy.load`.

    The base is read when it is first needed.
    """

    def __init__(self, folder: Path, **loading: Any) -> None:
        self.folder = folder
        self.loading = loading
        self._base: Policy | None = None

    @contextlib.contextmanager
    def using(self, adapter: Path | None) -> Iterator[Policy]:
        """The policy with an adapter, of which nothing is left after the block; without one the base itself.

        A folder that brings weights of the base's own, those of a whole model after full fine-tuning or of
        `modules_to_save`, is read by itself: PEFT does not put such weights back. Raises `PolicyError` for an adapter
        of another base; the base is then read anew when it is next needed.
        """
        if adapter is not None and not _adds_only(adapter):
            yield Policy.load(self.folder, adapter, **self.loading)
            return
        if self._base is None:
            self._base = Policy.load(self.folder, **self.loading)
        base = self._base
        if adapter is None:
            yield base
            return
        try:
            model = put_on(base.model, adapter, False, self.folder)
        except BaseException:
            self._base = None  # PEFT may have put its layers into it before the adapter was refused
            raise
        try:
            yield Policy(model.eval(), base.processor, base.device, base.autocast)
        finally:
            base.model = model.unload()


def _adds_only(adapter: Path) -> bool:
    """Whether a folder holds matrices beside the base's weights, and nothing in their place."""
    config = adapter / "adapter_config.json"
    return config.exists() and not json.loads(config.read_text(encoding="utf-8")).get("modules_to_save")
