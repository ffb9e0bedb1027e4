"""The one error of this package."""


class InputError(ValueError):
    """One file that cannot be used as it is. The message names the file, what was found, and what to do about it."""
