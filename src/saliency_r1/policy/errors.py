"""What can be wrong with a policy's folder."""


class PolicyError(ValueError):
    """A policy that cannot be loaded; the message names the folder."""
