"""Errors that are the user's to mend: one sentence that says what is wrong, where, and what to do."""


class UsageError(ValueError):
    """Bad input. The command-line tools print its text without a traceback and exit with status 2."""


def first_line(error: BaseException) -> str:
    """What an error says, as far as one line goes."""
    lines = str(error.args[0] if isinstance(error, KeyError) and error.args else error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
