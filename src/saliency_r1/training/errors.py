"""The one kind of error that the trainers raise on purpose."""


class TrainingError(ValueError):
    """A run that cannot start or go on; the message names what is wrong and where."""
