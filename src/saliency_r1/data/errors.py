"""The one error of this package."""

from collections.abc import Sequence


class DataError(ValueError):
    """Data that cannot be used. The message names the file or key, what was expected, and what to do about it."""


class Unreachable(DataError):
    """Data that cannot be had at the moment; the same run may go well later, and a schedule tries again."""

    transient = True


def listed(names: Sequence[str], limit: int = 10) -> str:
    """Up to `limit` names, one a line, and how many there are beyond."""
    lines = [f"  {name}" for name in names[:limit]]
    if len(names) > limit:
        lines.append(f"  ... and {len(names) - limit} more")
    return "\n".join(lines)
