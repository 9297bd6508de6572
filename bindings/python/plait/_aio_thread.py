"""What would hold a loop up, done by a thread that ends with it."""

import threading


async def in_thread(loop, function, unwanted=lambda result: None):
    """What FUNCTION returns in a thread of its own; UNWANTED gets it if nobody waits any more."""
    future = loop.create_future()

    def finish(result, error):
        if future.done():
            if error is None:
                unwanted(result)
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    def work():
        result = error = None
        try:
            result = function()
        except BaseException as caught:
            error = caught
        try:
            loop.call_soon_threadsafe(finish, result, error)
        except RuntimeError:  # the loop is closed
            if error is None:
                unwanted(result)

    thread = threading.Thread(target=work, name="plait.aio", daemon=True)
    thread.start()
    try:
        return await future
    finally:
        if future.done() and not future.cancelled():
            thread.join()  # it has nothing more to do
