"""The errors of this package."""


class ChatError(ValueError):
    """A server that cannot be asked, or gives no answer; the message says what to do and never holds the key."""


class BudgetError(ChatError):
    """The budget of a run is spent; what was answered is kept."""
