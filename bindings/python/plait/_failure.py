"""What the caller of a handler that raised is told, and the log."""

import sys
import traceback

from ._errors import RemoteError


def tell(error, method):
    """(status, text) for the caller. The log hears of it, where the program uses logging."""
    if isinstance(error, RemoteError):
        status = error.status if isinstance(error.status, int) and 0 < error.status <= 0x7FFFFFFF else 1
        return status, sendable(str(error))
    text = "".join(traceback.format_exception(error)).rstrip("\n")
    if "logging" in sys.modules:
        sys.modules["logging"].getLogger("plait").error("the handler of %r raised", method, exc_info=error)
    return 1, sendable(text)


def sendable(text):
    """What UTF-8 and a C string cannot hold, escaped."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
