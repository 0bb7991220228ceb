"""What everything about data raises for the user's mistakes."""


class DatasetError(ValueError):
    """A data set cannot be written or used; the message is a sentence that says why and what to do."""
