"""How a command ends on an error that a person can mend."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Such an error inside the block becomes one paragraph on stderr and exit code 1; any other is raised on."""
    from saliency_r1.runtime.stage import describe_error, is_user_error

    try:
        yield
    except Exception as error:
        if not is_user_error(error):
            raise
        typer.echo(describe_error(error), err=True)
        raise typer.Exit(1) from None
