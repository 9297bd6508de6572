"""What the caller of a handler that raised is told, and the log."""

import sys
import traceback

from ._errors import RemoteError


def tell(error, method):
    """(status, text) for the caller. The log hears of it, where the program uses logging."""
    if isinstance(error, RemoteError):
        return error.status, str(error)
    text = "".join(traceback.format_exception(error)).rstrip("\n")
    if "logging" in sys.modules:
        sys.modules["logging"].getLogger("plait").error("the handler of %r raised", method, exc_info=error)
    return 1, text
