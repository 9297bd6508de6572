"""What plait raises. Every exception says what went wrong, where, and what to do; `code` is the errno behind it."""

import builtins


class Error(Exception):
    """A plait call failed. `code` (int): the positive errno, such as errno.EMSGSIZE; 0 where there is none."""

    def __init__(self, text="", code=0):
        super().__init__(text)
        self.code = code
        if isinstance(self, OSError):
            self.errno = code

    def __reduce__(self):
        return type(self), (str(self), self.code)


class TimeoutError(Error, builtins.TimeoutError):
    """No answer in time. The call may still run over there."""


class PeerDied(Error, builtins.ConnectionResetError):
    """The process that was to answer ended. The text says whether the call may have run."""


class NoSuchName(Error, builtins.FileNotFoundError):
    """Nobody serves this name. The text lists where it was looked for, and names that are near."""


class RemoteError(Error):
    """The handler failed.

    status (int): 1 for an exception, or what the handler chose, 1 to 0x7fffffff.
    traceback (str): the handler's own text; of a Python handler its traceback.

    A handler may raise it, too: its caller then gets exactly this text and status.
    """

    def __init__(self, text="", status=1, traceback=None, code=121):
        super().__init__(text, code)
        self.status = status
        self.traceback = text if traceback is None else traceback

    def __reduce__(self):
        return type(self), (str(self), self.status, self.traceback, self.code)
