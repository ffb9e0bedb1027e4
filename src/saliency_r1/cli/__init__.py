"""The command line: `saliency-r1`."""

import sys


def main() -> None:
    """Run the command line; an interruption while it is still being loaded ends in one line as well."""
    try:
        from saliency_r1.cli.app import app

        app()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
