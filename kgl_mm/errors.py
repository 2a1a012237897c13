"""Errors that are the user's to mend: one sentence that says what is wrong, where, and what to do."""


class UsageError(ValueError):
    """Bad input. The command-line tools print its text without a traceback and exit with status 2."""
