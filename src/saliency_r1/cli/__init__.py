"""The command line: `saliency-r1`."""

import sys


def main() -> None:
    """Run the command line; an interruption, while it is still being loaded as well, ends in one line and code 130."""
    try:
        from saliency_r1.cli.app import app

        app()
    except KeyboardInterrupt:
        code: object = 130
    except SystemExit as end:
        code = end.code
    if code == 130:  # typer ends so without a word
        print("interrupted", file=sys.stderr)
    sys.exit(code)  # type: ignore[arg-type]
