"""Publishers and subscribers, callbacks, and how long what they say stays valid."""

import gc
import os
import signal
import sys
import threading

from memory import lent_by_malloc
from support import Case, PATIENCE, plait, wait_until_main_sleeps


class Topics(Case):
    def publisher(self, topic="test", **options):
        publisher = plait.Publisher(topic, **options)
        self.addCleanup(publisher.close)
        return publisher

    def subscribe(self, topic="test", **options):
        options.setdefault("timeout", PATIENCE)
        subscriber = plait.subscribe(topic, **options)
        self.addCleanup(subscriber.close)
        return subscriber

    def test_the_publisher_may_be_first(self):
        publisher = self.publisher()
        subscriber = self.subscribe()
        publisher.publish("one")
        self.assertEqual(subscriber.next().text, "one")
        self.assertEqual((publisher.subscribers, subscriber.publishers), (1, 1))

    def test_the_subscriber_may_be_first(self):
        subscriber = self.subscribe()
        self.publisher(history=10).publish("one")
        self.assertEqual(subscriber.next().text, "one")

    def test_every_kind_of_data_arrives_as_what_it_was(self):
        publisher, subscriber = self.publisher(), self.subscribe()
        for data, encoding in ((b"bytes", "bytes"), ("tëxt", "text"), ({"a": [1]}, "json"), ([1, 2], "json"),
                               (None, "bytes"), (bytearray(b"x" * 100_000), "bytes"), (memoryview(b"view"), "bytes")):
            publisher.publish(data)
            message = subscriber.next()
            self.assertEqual(message.encoding, encoding)
            if encoding == "json":
                self.assertEqual(message.json(), data)
            elif encoding == "text":
                self.assertEqual((message.text, bytes(message)), (data, data.encode()))
            else:
                self.assertEqual(bytes(message), bytes(data or b""))
            self.assertEqual((message.topic, message.lost, message.lost_text, len(message)),
                             ("test", 0, "", len(bytes(message))))
        publisher.publish(json=3)
        message = subscriber.next()
        self.assertEqual((message.json(), message.number, repr(message)), (3, 8, "<plait.Message of 'test': 1 bytes, json>"))
        self.assertAlmostEqual(message.time, message.time_ns / 1e9, 3)

    def test_iterating_gives_each_message_in_order(self):
        publisher, subscriber = self.publisher(reliable=True), self.subscribe()
        for i in range(1000):
            publisher.publish(str(i))
        for i, message in zip(range(1000), subscriber):
            self.assertEqual(int(message.text), i)

    def test_history_is_what_a_late_subscriber_gets(self):
        publisher = self.publisher(history=5)
        for i in range(20):
            publisher.publish([i])
        subscriber = self.subscribe(history=3)
        self.assertEqual([subscriber.next().json()[0] for _ in range(3)], [17, 18, 19])
        with self.assertRaises(plait.TimeoutError):
            subscriber.next(timeout=0)

    def test_a_subscriber_that_is_too_slow_learns_how_many_it_lost(self):
        publisher, subscriber = self.publisher(), self.subscribe()
        publisher.publish(b"0")
        self.assertEqual(subscriber.next().number, 1)
        for i in range(100_000):
            publisher.publish(b"x" * 64)
        message, lost, seen = subscriber.next(), 0, 0
        self.assertIn("overrun", message.lost_text)
        while True:
            lost, seen = lost + message.lost, seen + 1
            if message.number == 100_001:
                break
            message = subscriber.next()
        self.assertEqual(lost + seen, 100_000)
        self.assertGreater(lost, 0)

    def test_nothing_within_the_timeout_is_a_timeout_error(self):
        with self.assertRaisesRegex(TimeoutError, "nobody publishes") as caught:
            self.subscribe().next(timeout=0.02)
        self.assertIsInstance(caught.exception, plait.TimeoutError)
        with self.assertRaises(plait.TimeoutError):
            for message in self.subscribe(timeout=0.02):
                self.fail(message)

    def test_mistakes_are_told(self):
        publisher, subscriber = self.publisher(), self.subscribe()
        for wrong in (lambda: publisher.publish(3), lambda: publisher.publish(), lambda: publisher.publish(b"", json=1),
                      lambda: plait.Publisher(3), lambda: subscriber.next(timeout="1"), plait.Message, plait.Loan):
            self.assertRaises(TypeError, wrong)
        self.assertRaises(ValueError, lambda: subscriber.next(timeout=-1))
        for wrong in (lambda: plait.Publisher("bad name!"), lambda: plait.subscribe("bad name!"),
                      lambda: plait.Publisher("x", history=1_000_000)):
            with self.assertRaises(plait.Error) as caught:
                wrong()
            self.assertEqual(caught.exception.code, 22)
        publisher.close()
        self.server({"": lambda request: None})
        with self.assertRaisesRegex(plait.NoSuchName, "is a service"):
            plait.subscribe("test")

    def test_all_topics_of_a_prefix_over_one_subscriber(self):
        subscriber = self.subscribe("sensors.*")
        for name in ("sensors.a", "sensors.b"):
            self.publisher(name, history=1).publish(name)
        self.assertEqual({subscriber.next().topic for _ in range(2)}, {"sensors.a", "sensors.b"})

    def test_over_tcp(self):
        publisher = self.publisher(listen="tcp://127.0.0.1:0")
        subscriber = self.subscribe(publisher.urls[0] + ("" if publisher.urls[0].endswith("/test") else "/test"))
        publisher.publish(b"x" * 100_000)
        self.assertEqual(len(subscriber.next()), 100_000)

    def test_closed_ones_say_so(self):
        publisher, subscriber = self.publisher(), self.subscribe()
        with publisher, subscriber:
            pass
        publisher.close(), subscriber.close()
        self.assertTrue(publisher.closed and subscriber.closed)
        for wrong in (lambda: publisher.publish(b""), subscriber.next):
            with self.assertRaises(plait.Error) as caught:
                wrong()
            self.assertEqual(caught.exception.code, 9)

    def test_a_large_message_is_a_view_of_the_publishers_segment(self):
        publisher, subscriber = self.publisher(), self.subscribe()
        publisher.publish(b"v" * 3_000_000)
        before = rss()
        view = memoryview(subscriber.next())
        self.assertTrue(view.readonly and view[-1] == ord("v"))
        self.assertLess(rss() - before, 1000)  # KiB; a copy would be 3000

    def test_a_view_outlives_message_subscriber_and_publisher(self):
        for size in (3, 3_000_000):
            publisher, subscriber = self.publisher(), self.subscribe()
            publisher.publish(b"v" * size)
            view = memoryview(subscriber.next())
            subscriber.close()
            publisher.close()
            del subscriber, publisher
            gc.collect()
            self.assertEqual(view.tobytes(), b"v" * size)

    PUBLISHER = ("import sys, time, plait\np = plait.Publisher('test', wait_subscribers=1, timeout=None)\n"
                 "print('ready', flush=True)\np.publish(b'v' * 3_000_000)\ntime.sleep(1000)")

    def test_a_view_outlives_a_publisher_that_was_killed_and_the_next_is_found(self):
        subscriber = self.subscribe()
        process = self.script(self.PUBLISHER)
        view = memoryview(subscriber.next())
        process.kill()
        process.wait()
        self.script(self.PUBLISHER)
        self.assertEqual(len(subscriber.next()), 3_000_000)
        subscriber.close()
        self.assertEqual(view.tobytes(), b"v" * 3_000_000)

    def test_keeping_ten_thousand_messages_stalls_nobody(self):
        publisher, subscriber = self.publisher(reliable=True), self.subscribe()
        kept = []
        for i in range(10_000):
            publisher.publish(f"{i:05}" + "x" * 20_000 * (i % 100 == 0))
            kept.append(subscriber.next())
        self.assertEqual([int(message.text[:5]) for message in kept], list(range(10_000)))
        self.assertEqual(sum(message.lost for message in kept), 0)

    def test_ten_thousand_messages_leave_no_object(self):
        publisher, subscriber, body = self.publisher(reliable=True), self.subscribe(), b"a body that is counted"

        def messages(count):
            for i in range(count):
                publisher.publish(body)
                message = subscriber.next()
                bytes(message), message.topic, message.lost, message.time
                if i % 100 == 0:
                    publisher.publish([i])
                    memoryview(subscriber.next()), subscriber.publishers, publisher.subscribers, publisher.urls
                    for wrong in (lambda: publisher.publish(3), lambda: subscriber.next(timeout=0)):
                        try:
                            wrong()
                        except (TypeError, plait.Error):
                            pass
            del message
            gc.collect()
            return sys.getrefcount(body), sys.getallocatedblocks(), lent_by_malloc()

        references, blocks, memory = messages(1000)
        references_after, blocks_after, memory_after = messages(10_000)
        self.assertEqual(references_after, references)
        self.assertLess(blocks_after - blocks, 500)
        self.assertLess(memory_after - memory, 500_000)

    def test_threads_share_a_publisher(self):
        publisher, subscriber = self.publisher(reliable=True, timeout=PATIENCE), self.subscribe()

        def publish():
            for i in range(2000):
                publisher.publish([i])

        threads = [threading.Thread(target=publish) for _ in range(4)]
        for thread in threads:
            thread.start()
        total = sum(subscriber.next().json()[0] for _ in range(8000))
        for thread in threads:
            thread.join()
        self.assertEqual(total, 4 * sum(range(2000)))

    def test_ctrl_c_ends_waiting_and_nothing_is_lost(self):
        subscriber = self.subscribe(timeout=None)
        self.assertLess(self.interrupted(subscriber.next), 2)
        self.publisher(history=1).publish("after")
        message = subscriber.next(timeout=PATIENCE)
        self.assertEqual((message.text, message.lost), ("after", 0))

    STUCK = ("import os, signal, plait\ns = plait.subscribe('test')\nprint('ready', flush=True)\n"
             "os.kill(os.getpid(), signal.SIGSTOP)")

    def test_ctrl_c_ends_publishing_to_a_subscriber_that_is_stuck(self):
        for size in (1000, 100_000):
            with plait.Publisher("test", reliable=True, timeout=None) as publisher:
                self.script(self.STUCK)

                def fill():
                    while True:
                        publisher.publish(b"x" * size)

                self.assertLess(self.interrupted(fill), 2)
                self.assertEqual(publisher.subscribers, 1)

    def test_ctrl_c_ends_waiting_for_subscribers_and_the_publisher_goes_on(self):
        publisher = self.publisher(wait_subscribers=1, timeout=None)
        self.assertLess(self.interrupted(publisher.publish, b"never"), 2)
        subscriber = self.subscribe()
        publisher.publish(b"heard")
        message = subscriber.next()
        self.assertEqual((bytes(message), message.number), (b"heard", 1))

    def test_a_signals_handler_that_publishes_where_its_thread_waits_is_refused(self):
        publisher, told, heard = self.publisher(wait_subscribers=1, timeout=None), [], threading.Event()

        def on_signal(number, frame):
            try:
                publisher.publish(b"again")
            except plait.Error as error:
                told.append(error.code)
            heard.set()

        before = signal.signal(signal.SIGUSR1, on_signal)
        self.addCleanup(signal.signal, signal.SIGUSR1, before)

        def kick():
            wait_until_main_sleeps()
            os.kill(os.getpid(), signal.SIGUSR1)
            heard.wait(PATIENCE)
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=kick)
        thread.start()
        self.assertRaises(KeyboardInterrupt, publisher.publish, b"first")
        thread.join(PATIENCE)
        self.assertEqual(told, [35])

    def test_closing_ends_the_wait_of_another_thread(self):
        subscriber, told = self.subscribe(timeout=None), []

        def wait():
            try:
                subscriber.next()
            except plait.Error as error:
                told.append(error.code)

        thread = threading.Thread(target=wait)
        thread.start()

        def is_inside():  # where another thread may not be
            try:
                subscriber.next(timeout=0)
            except plait.TimeoutError:
                return False
            except plait.Error as error:
                self.assertEqual(error.code, 16)
            return True

        self.until(is_inside)
        subscriber.close()
        thread.join(PATIENCE)
        self.assertEqual(told, [125])


class Callbacks(Case):
    def listen(self, callback, topic="test", **options):
        subscriber = plait.subscribe(topic, callback=callback, **options)
        self.addCleanup(subscriber.close)
        return subscriber

    def test_a_callback_gets_each_message_in_a_thread_of_its_own(self):
        seen, over = [], threading.Event()

        def note(message):
            seen.append((message.json()[0], threading.current_thread() is threading.main_thread()))
            if len(seen) == 100:
                over.set()

        with plait.Publisher("test", history=1) as publisher:
            publisher.publish([0])
            self.listen(note, history=1)
            for i in range(1, 100):
                publisher.publish([i])
            self.assertTrue(over.wait(PATIENCE))
        self.assertEqual(seen, [(i, False) for i in range(100)])

    def test_after_close_no_callback_runs(self):
        gate, entered, order = self.gate(), threading.Event(), []

        def slow(message):
            entered.set()
            gate.wait(PATIENCE)
            order.append("called")

        with plait.Publisher("test") as publisher:
            with self.listen(slow) as subscriber:
                publisher.publish(b"1")
                publisher.publish(b"2")
                self.assertTrue(entered.wait(PATIENCE))

                def close():
                    subscriber.close()
                    order.append("closed")

                thread = threading.Thread(target=close)
                thread.start()
                self.until(lambda: subscriber.closed)
                gate.set()
                thread.join(PATIENCE)
        self.assertEqual(order, ["called", "closed"])
        self.assertFalse(subscriber._thread.is_alive())

    def test_what_a_callback_raises_is_told_and_the_next_message_follows(self):
        told, over = self.hear_of_exceptions(), threading.Event()

        def wrong(message):
            if message.text == "last":
                over.set()
            raise KeyError(message.text)

        with plait.Publisher("test") as publisher:
            subscriber = self.listen(wrong)
            publisher.publish("first")
            publisher.publish("last")
            self.assertTrue(over.wait(PATIENCE))
            subscriber.close()
        self.assertEqual([(each.exc_type, str(each.exc_value)) for each in told],
                         [(KeyError, "'first'"), (KeyError, "'last'")])

    def hear_of_exceptions(self):
        told = []
        before, threading.excepthook = threading.excepthook, told.append
        self.addCleanup(setattr, threading, "excepthook", before)
        return told

    def test_a_callback_may_close_its_subscriber_and_sys_exit_does(self):
        told = self.hear_of_exceptions()
        for end in (lambda subscriber: subscriber.close(), lambda subscriber: sys.exit()):
            made, given = threading.Event(), []

            def callback(message):
                made.wait(PATIENCE)
                end(given[0])

            with plait.Publisher("test") as publisher:
                given.append(self.listen(callback))
                made.set()
                publisher.publish(b"")
                given[0]._thread.join(PATIENCE)
            self.assertTrue(given[0].closed)
        self.assertEqual([each.exc_type for each in told], [SystemExit])  # of which the usual hook says nothing

    def test_another_thread_that_wants_to_wait_there_is_refused(self):
        subscriber = self.listen(lambda message: None)

        def refused():
            try:
                subscriber.next(timeout=0)
            except plait.Error as error:
                return error.code
            self.fail("it was let in")

        self.until(lambda: refused() == 16)  # before the thread is in there it is 110

    def test_the_interpreter_ends_with_callbacks_waiting_and_under_way(self):
        process = self.script(
            "import plait, threading, time\nentered = threading.Event()\n"
            "def stuck(message): entered.set(); time.sleep(1000)\n"
            "plait.subscribe('test', callback=print), plait.subscribe('other', callback=stuck)\n"
            "p = plait.Publisher('other', history=1)\np.publish(b'x')\nentered.wait()\nprint('ready', flush=True)")
        out, err = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, out, err), (0, "", ""))

    def test_mistakes_are_told(self):
        for wrong in ({"callback": 3}, {"callback": print, "timeout": 1.0}):
            self.assertRaises(TypeError, plait.subscribe, "test", **wrong)


def rss():
    with open("/proc/self/status") as file:
        return int(file.read().split("RssAnon:")[1].split()[0])
