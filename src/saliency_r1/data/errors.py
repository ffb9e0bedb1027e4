"""The one error of this package, and which errors of clients may go away by themselves."""

from collections.abc import Sequence

BUSY = (408, 425, 429, 500, 502, 503, 504)  # HTTP status of a server that may answer later


class DataError(ValueError):
    """Data that cannot be used. The message names the file or key, what was expected, and what to do about it."""


class Unreachable(DataError):
    """Data that cannot be had at the moment; the same run may go well later, and a schedule tries again."""

    transient = True


def may_pass(error: Exception, refusals: tuple[type[Exception], ...] = ()) -> bool:
    """Whether what a client raised may go away by itself.

    The status of the server's answer decides; where there was none, everything may but `refusals` and what was asked
    wrongly, a ValueError such as a name that is none.
    """
    status = getattr(getattr(error, "response", None), "status_code", None)
    return not isinstance(error, (ValueError, *refusals)) if status is None else status in BUSY


def listed(names: Sequence[str], limit: int = 10) -> str:
    """Up to `limit` names, one a line, and how many there are beyond."""
    lines = [f"  {name}" for name in names[:limit]]
    if len(names) > limit:
        lines.append(f"  ... and {len(names) - limit} more")
    return "\n".join(lines)
