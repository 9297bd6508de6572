"""The part that needs numpy, which is imported when it is used."""

import operator


def _numpy():
    try:
        import numpy
    except ImportError as error:
        raise ImportError(f"arrays need numpy ({error}): install python3-numpy, or pip install numpy") from None
    return numpy


def _dtype(numpy, dtype):
    dtype = numpy.dtype(dtype)
    if dtype.hasobject or not dtype.itemsize:
        raise TypeError(f"an array of {dtype} has no elements that another process could read")
    return dtype


def view(body, offset, size, told_dtype, told_shape, dtype, shape):
    """The SIZE bytes at OFFSET of BODY, which the array keeps alive."""
    numpy = _numpy()
    if dtype is None and told_dtype is None:
        raise TypeError("this message doesn't say what it holds: array(dtype, shape)")
    given = dtype is not None
    dtype = _dtype(numpy, dtype if given else told_dtype)
    if shape is None:
        shape = told_shape if told_shape is not None and (not given or dtype.itemsize == numpy.dtype(told_dtype).itemsize) \
            else (-1,)
    if size % dtype.itemsize:
        raise ValueError(f"{size} bytes are no whole number of {dtype}, of {dtype.itemsize} bytes each")
    return numpy.ndarray((size // dtype.itemsize,), dtype, body, offset).reshape(shape)


def measure(shape, dtype):
    """(shape, dtype, bytes of the message) of an array that is to be lent."""
    numpy = _numpy()
    dtype = _dtype(numpy, dtype)
    try:
        shape = (operator.index(shape),)
    except TypeError:
        shape = tuple(operator.index(length) for length in shape)
    if any(length < 0 for length in shape):
        raise ValueError(f"a shape has no negative length: {shape}")
    size = dtype.itemsize
    for length in shape:
        size *= length
    return shape, dtype, HEAD + size


def lend(lender, shape, dtype):
    """A writable array in memory that LENDER lends."""
    shape, dtype, size = measure(shape, dtype)
    return _numpy().ndarray(shape, dtype, lender._loan(size), HEAD)


HEAD = 128  # PLAIT_ARRAY_HEAD
