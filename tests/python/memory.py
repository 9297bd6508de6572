"""What C has taken; apart, since programs that are counted import no more than they need."""

import ctypes


class Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
                ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]


def lent_by_malloc():
    """Bytes that malloc() has given out and not got back; what the library leaks in C shows here. 0 under a sanitizer."""
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = Mallinfo2
    return mallinfo2().uordblks
