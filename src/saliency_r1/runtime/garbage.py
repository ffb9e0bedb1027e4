"""Loading without looking for garbage meanwhile."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collecting_nothing() -> Iterator[None]:
    """Keep Python's collector still while something large is loaded.

    The modules and weights of a model are a million objects that all stay. The collector looks through them again and
    again as they become more, a fifth of the time of loading, and finds nothing.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
