"""numpy's arrays as messages, also lent ones: nothing is copied, nothing dangles, and no argument is needed. Without
numpy this fails: it is run where numpy is, or must be."""

import asyncio
import gc

import numpy

from support import Case, Loop, PATIENCE, expected_of_blocks, plait
import plait.aio


def segment_of(address):
    """(device, inode) of the memfd that ADDRESS is mapped from; None: it is other memory."""
    with open("/proc/self/maps") as file:
        for line in file:
            fields = line.split()
            first, last = (int(end, 16) for end in fields[0].split("-"))
            if first <= address < last:
                return (fields[3], fields[4]) if "memfd:" in line else None
    return None


def address_of(array):
    return array.__array_interface__["data"][0]


def segments_mapped():
    with open("/proc/self/maps") as file:
        return sum("memfd:" in line for line in file)


def faults():
    with open("/proc/self/stat") as file:
        return int(file.read().rsplit(")", 1)[1].split()[7])


class Pair(Loop):
    def pair(self, **options):
        publisher = plait.Publisher("test", **options)
        self.addCleanup(publisher.close)
        subscriber = plait.subscribe("test", timeout=PATIENCE)
        self.addCleanup(subscriber.close)
        return publisher, subscriber


class Arrays(Pair):
    def kinds(self):
        base = numpy.arange(24)
        return [base.astype(kind).reshape(2, 3, 4) for kind in ("<f4", ">f8", "|u1", "<i8", "<c16", "|b1", "<U3", "|S5")] + [
            numpy.array(7.5), numpy.zeros((0, 3)), base[::-2], base.reshape(4, 6).T, base.reshape(4, 6)[1:3, ::3],
            numpy.array(["2026-01-02"], "M8[ns]"), numpy.float32(2.5), numpy.asfortranarray(base.reshape(4, 6)),
            numpy.arange(3_000_000, dtype="<u2").reshape(1000, 3000)]

    def same(self, got, sent):
        self.assertEqual((got.dtype, got.shape, got.flags.writeable), (sent.dtype, sent.shape, False))
        self.assertTrue(numpy.array_equal(got, sent))

    def test_a_message_is_the_array_that_was_published(self):
        publisher, subscriber = self.pair()
        for sent in self.kinds():
            publisher.publish(sent)
            message = subscriber.next()
            self.assertEqual(message.encoding, "array")
            self.same(message.array(), sent)

    def test_a_request_and_its_reply_are_arrays_too(self):
        self.server({"": lambda request: request.array()})
        client = self.connect()
        for sent in self.kinds():
            self.same(client.call("", sent).array(), sent)

    def test_bytes_are_an_array_of_the_type_that_is_asked_for(self):
        publisher, subscriber = self.pair()
        publisher.publish(bytes(range(24)))
        message = subscriber.next()
        self.assertEqual(message.array("u1").shape, (24,))
        self.assertEqual(message.array("<u2", (3, 4)).shape, (3, 4))
        self.assertEqual(message.array("<u2", (3, -1)).shape, (3, 4))
        self.assertEqual(message.array(shape=(2, 12), dtype=numpy.uint8)[1, 0], 12)
        for error, arguments in ((TypeError, ()), (ValueError, ("<u8", (2, 2))), (ValueError, ("<c16",)), (TypeError, ("O",)),
                                 (TypeError, ("no type",))):
            self.assertRaises(error, message.array, *arguments)
        publisher.publish(numpy.zeros((2, 3), "<f4"))
        message = subscriber.next()
        self.assertEqual(message.array("<u4").shape, (2, 3))
        self.assertEqual(message.array("u1").shape, (24,))
        self.assertEqual(message.array(shape=6).shape, (6,))

    def test_what_no_other_process_could_read_is_refused(self):
        publisher, _ = self.pair()
        self.assertRaisesRegex(TypeError, "type", publisher.publish, numpy.array([object()]))
        self.assertRaisesRegex(ValueError, "dimensions", publisher.publish, numpy.zeros((1,) * 9))
        class Odd:
            __array_interface__ = {"shape": 3}
        self.assertRaisesRegex(TypeError, "__array_interface__", publisher.publish, Odd())

    def test_a_large_message_is_looked_at_where_it_was_written(self):
        publisher, subscriber = self.pair()
        publisher.publish(numpy.ones((1080, 1920, 3), "u1"))
        array = subscriber.next().array()
        self.assertIsNotNone(segment_of(address_of(array)))
        self.assertRaises(ValueError, array.__setitem__, (0, 0, 0), 1)

    def test_an_array_outlives_message_subscriber_and_publisher(self):
        publisher, subscriber = self.pair()
        publisher.publish(numpy.arange(1_000_000))
        part = subscriber.next().array()[500_000:]
        subscriber.close()
        publisher.close()
        gc.collect()
        self.assertEqual(part[-1], 999_999)

    def test_a_large_reply_outlives_its_client_as_an_array(self):
        self.server({"": lambda request: numpy.arange(1_000_000)})
        client = self.connect()
        client.call()  # the first goes through the socket, while the server makes a segment for the next
        array = client.call().array()
        client.close()
        gc.collect()
        self.assertEqual(array[-1], 999_999)
        self.assertIsNotNone(segment_of(address_of(array)))


class LentArrays(Pair):
    def test_a_lent_array_is_read_in_the_segment_that_it_was_written_in(self):
        publisher, subscriber = self.pair()
        for dtype in ("u1", "<f4", None):
            array = publisher.loan((1080, 1920), dtype)
            self.assertEqual((array.shape, array.dtype), ((1080, 1920), numpy.dtype(dtype)))
            array[:] = 7
            publisher.publish(array)
            got = subscriber.next().array()
            self.assertEqual(segment_of(address_of(got)), segment_of(address_of(array)))
            self.assertTrue((got == 7).all() and got.dtype == array.dtype)

    def test_a_lent_array_is_over_once_it_is_published_and_stays_readable_memory(self):
        publisher, subscriber = self.pair()
        array = publisher.loan((1000, 1000), "u1")
        array[:] = 1
        row = array[0]
        publisher.publish(array)
        self.assertRaises(ValueError, array.__setitem__, (0, 0), 1)
        self.assertRaisesRegex(ValueError, "over", publisher.publish, array)
        publisher.close()
        subscriber.close()
        gc.collect()
        self.assertEqual((row.sum(), array[-1, -1]), (1000, 1))

    def test_part_of_a_lent_array_is_copied_and_the_whole_goes_afterwards(self):
        publisher, subscriber = self.pair()
        array = publisher.loan((1000, 1000), "<i4")
        array[:] = numpy.arange(1000)
        for part, shape in ((array[:10, ::2], (10, 500)), (array[:10], (10, 1000)),
                            (numpy.ndarray((5,), "<i4", array.base, 128), (5,))):  # which begins where the whole does
            publisher.publish(part)
            self.assertEqual(subscriber.next().array().shape, shape)
        publisher.publish(array)
        self.assertEqual(subscriber.next().array()[3, 999], 999)

    def test_small_and_odd_ones_are_lent_too(self):
        publisher, subscriber = self.pair()
        for shape in (3, (), (0, 4), (2, 2), [5, 1]):
            array = publisher.loan(shape, "<i2")
            array[...] = 9
            publisher.publish(array)
            got = subscriber.next().array()
            self.assertEqual(got.shape, array.shape)
            self.assertTrue((got == 9).all())
        for error, arguments in ((ValueError, (-1,)), (TypeError, ("x",)), (TypeError, (3, "O")), (plait.Error, (1 << 40, "u1"))):
            self.assertRaises(error, publisher.loan, *arguments)

    def test_a_loan_that_is_never_published_goes_back(self):
        publisher, _ = self.pair()
        for _ in range(1000):  # there are 64
            publisher.loan(100_000, "u1")[0] = 1

    def test_no_page_is_faulted_in_twice(self):
        publisher, subscriber = self.pair()

        def frames(count):
            for i in range(count):
                array = publisher.loan((1080, 1920, 3), "u1")
                array[::4096 // (1920 * 3) or 1, 0, 0] = i
                publisher.publish(array)
                subscriber.next().array()[:, 0, 0].sum()

        frames(20)
        before = faults()
        frames(100)
        self.assertLess(faults() - before, 100)  # 1519 pages each, were they new

    def test_mappings_do_not_pile_up(self):
        publisher, subscriber = self.pair()
        counts = []
        for _ in range(3):
            for size in (10_000, 100_000, 1_000_000) * 20:
                array = publisher.loan(size, "u1")
                publisher.publish(array)
                subscriber.next()
            gc.collect()
            counts.append(segments_mapped())
        self.assertLessEqual(counts[2], counts[0] + 2)

    def test_lent_to_asyncio_as_well(self):
        async def body():
            async with plait.aio.Publisher("test", reliable=True, timeout=PATIENCE) as publisher, \
                    plait.aio.subscribe("test", timeout=PATIENCE) as subscriber:
                async def publish():
                    for i in range(200):  # there are 64 segments: it has to wait
                        array = await publisher.loan((100, 100), "<i4")
                        array[:] = i
                        await publisher.publish(array)

                publishing = asyncio.create_task(publish())
                for i in range(200):
                    array = (await subscriber.next()).array()
                    self.assertEqual((array.shape, array[0, 0], array[99, 99]), ((100, 100), i, i))
                    del array
                await publishing
                with self.assertRaises(TypeError):
                    await publisher.loan(3, "O")

        self.run_async(body())

    def test_a_loan_that_has_to_wait_leaves_the_loop_to_others(self):
        async def body():
            async with plait.aio.Publisher("test", reliable=True, timeout=5.0) as publisher:
                with plait.subscribe("test", timeout=PATIENCE) as subscriber:
                    count = 0
                    while publisher._core._ready(10_000):
                        await publisher.publish(b"x" * 10_000)
                        count += 1
                    lending = asyncio.create_task(publisher.loan((100, 100), "u1"))
                    await asyncio.sleep(0)
                    self.assertFalse(lending.done())
                    for _ in range(count):
                        self.assertEqual(subscriber.next().lost, 0)
                    array = await lending
                    array[:] = 3
                    await publisher.publish(array)
                    self.assertEqual(subscriber.next().array().sum(), 30_000)

        self.run_async(body())


class Page(Case):
    def test_the_block_of_the_page_does_what_its_comments_say(self):
        for text, said in expected_of_blocks(self, "numpy"):
            self.assertIn(text, said)
