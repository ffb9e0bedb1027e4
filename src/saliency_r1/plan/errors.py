"""What a plan says no with."""


class PlanError(ValueError):
    """A configuration that cannot be planned, or that does not fit; the message names what to change."""
