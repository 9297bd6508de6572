#!/usr/bin/python3
"""tracker.py TOPIC RESULT [COUNT]: looks for the white disc in each picture of TOPIC (see camera.c), without copying one.

It publishes where the disc is to RESULT, as JSON, and to RESULT.small the picture at an eighth of its size. It ends after
COUNT pictures, or with Ctrl-C. Needs numpy (python3-numpy).
"""

import sys

import numpy
import plait


def find(picture):
    """The centre of what is white, (x, y). Every fourth pixel of every fourth row is enough to see it."""
    rows, columns = numpy.nonzero(picture[::4, ::4].min(axis=2) == 255)
    return [round(4 * columns.mean(), 1), round(4 * rows.mean(), 1)] if len(rows) else None


def track(topic, result, count=None):
    with (plait.subscribe(topic) as camera, plait.Publisher(result, history=1) as places,
          plait.Publisher(result + ".small", history=1) as pictures):
        for seen, message in enumerate(camera, 1):
            picture = message.array()                           # a view of what the camera drew
            small = pictures.loan((135, 240, 3), "u1")
            small[:] = picture[::8, ::8]                        # the only bytes that are copied
            pictures.publish(small)
            places.publish({"picture": message.number, "disc": find(picture), "missed": message.lost,
                            "brightness": round(float(small.mean()), 2)})
            if seen == count:
                break


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__.split("\n\n")[0])
    try:
        track(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) == 4 else None)
    except KeyboardInterrupt:
        pass
