import atexit
import sys
from _thread import get_ident

from . import _plait
from ._errors import Error

END = 2.0  # seconds that the interpreter's end waits for a callback under way
_calling = set()


class Subscriber(_plait.Subscriber):
    """A subscription, made by plait.subscribe(): `for message in subscriber`, or next(). `with` closes it.

    By one thread at a time; a child of fork() opens its own.
    """

    _thread = None

    def close(self):
        """Ends; a second time does nothing. Messages that you keep stay valid; a thread that waits here gets an Error
        within 100 ms. With a callback it waits for one that is under way, unless it is called from there."""
        super().close()
        if self._thread is not None and self._thread.ident != get_ident():
            self._thread.join()

    def __exit__(self, *_):
        self.close()

    def _begin(self, callback):
        import threading

        self._thread = threading.Thread(target=self._work, args=(callback,), name=f"plait {self.topic}", daemon=True)
        _calling.add(self)
        self._thread.start()

    def _work(self, callback):
        try:
            while (message := self._next()) is not None:
                try:
                    callback(message)
                except Exception:
                    self._tell()
                del message
        finally:  # sys.exit() ends it, too
            _calling.discard(self)
            super().close()

    def _next(self):
        try:
            return self.next()
        except Error:
            if self.closed:
                return None
            raise

    def _tell(self):
        import threading

        threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), self._thread)))


@atexit.register
def _end():
    left = list(_calling)
    for subscriber in left:
        _plait.Subscriber.close(subscriber)
    for subscriber in left:
        subscriber._thread.join(END)
