"""The one error of this package."""


class PredictError(ValueError):
    """A request that cannot be answered: an unknown task, no picture, an unreadable file."""
