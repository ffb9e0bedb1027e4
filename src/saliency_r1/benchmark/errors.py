"""The errors of this package."""


class BenchmarkError(ValueError):
    """A benchmark that cannot be run, or is not complete; the message says what to do."""
