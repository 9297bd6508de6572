"""plait.aio's publishers and subscribers: who waits leaves the loop to others."""

import asyncio
import errno
import os
import signal
import socket
import threading

from support import Loop, PATIENCE, plait
import plait.aio


class Subscribers(Loop):
    def test_async_for_gives_each_message(self):
        async def main():
            with plait.Publisher("test", reliable=True) as publisher:
                async with plait.aio.subscribe("test") as subscriber:
                    async def publish():
                        for i in range(500):
                            publisher.publish([i])
                            if i % 50 == 0:
                                await asyncio.sleep(0)

                    task, seen = asyncio.create_task(publish()), []
                    async for message in subscriber:
                        seen.append(message.json()[0])
                        if len(seen) == 500:
                            break
                    await task
                    self.assertEqual(seen, list(range(500)))
                    self.assertEqual(subscriber.publishers, 1)

        self.run_async(main())

    def test_waiting_leaves_the_loop_to_others_and_ends_with_a_timeout(self):
        async def main():
            subscriber = plait.aio.subscribe("test", timeout=0.05)
            with self.assertRaises(plait.TimeoutError):
                await subscriber.next()
            waiting = asyncio.create_task(subscriber.next(timeout=None))
            await asyncio.sleep(0)
            with plait.Publisher("test", history=1) as publisher:
                publisher.publish("late")
                self.assertEqual((await waiting).text, "late")
            waiting = asyncio.create_task(subscriber.next(timeout=None))
            await asyncio.sleep(0)
            waiting.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await waiting
            waiting = asyncio.create_task(subscriber.next(timeout=None))
            await asyncio.sleep(0)
            subscriber.close()
            with self.assertRaises(plait.Error) as caught:
                await waiting
            self.assertEqual(caught.exception.code, 125)
            with self.assertRaises(plait.Error):
                await subscriber.next()

        self.run_async(main())

    def test_over_tcp(self):
        async def main():
            with plait.Publisher("test", listen="tcp://127.0.0.1:0", history=1) as publisher:
                publisher.publish("before")
                url = publisher.urls[0]
                async with plait.aio.subscribe(url if url.endswith("/test") else url + "/test", history=1) as subscriber:
                    async for message in subscriber:
                        self.assertEqual(message.text, "before")
                        break

        self.run_async(main())

    def test_a_publisher_that_is_stopped_does_not_hold_the_loop_up(self):
        process = self.script("import os, plait\np = plait.Publisher('test', history=1)\np.publish(b'told before')\n"
                              "print('ready', flush=True)\nimport time; time.sleep(1000)")
        os.kill(process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)  # each of its threads is

        async def subscribe():
            subscriber = plait.aio.subscribe("test", history=1)
            opening = asyncio.create_task(subscriber.next())
            await asyncio.sleep(0.01)
            os.kill(process.pid, signal.SIGCONT)
            self.assertEqual(bytes(await opening), b"told before")
            subscriber.close()

        async def main():
            self.assertLess(await self.longest_hold(subscribe()), 0.9)  # plait.subscribe() would wait for a second

        self.run_async(main())

    def test_a_publisher_that_starts_anew_is_connected_to_without_holding_the_loop_up(self):
        path = os.path.join(self.directory, "topic")

        async def main():
            first = plait.Publisher("test", listen=f"unix://{path}", history=1)
            subscriber = plait.aio.subscribe(f"unix://{path}", history=1)
            first.publish("first")
            self.assertEqual((await subscriber.next()).text, "first")
            first.close()
            with socket.socket(socket.AF_UNIX) as silent:  # somebody else is there meanwhile, and says nothing
                silent.bind(path)
                silent.listen()
                silent.settimeout(PATIENCE)
                waiting = asyncio.create_task(subscriber.next())

                async def met():
                    connection, _ = await asyncio.to_thread(silent.accept)
                    waiting.cancel()  # its thread may wait on
                    with self.assertRaises(asyncio.CancelledError):
                        await waiting
                    connection.close()

                self.assertLess(await self.longest_hold(met()), 0.9)  # an attempt takes a second
            os.unlink(path)
            with plait.Publisher("test", listen=f"unix://{path}", history=1) as second:
                second.publish("second")
                self.assertEqual((await subscriber.next()).text, "second")
            subscriber.close()

        self.run_async(main())

    def test_another_task_that_wants_to_wait_there_is_refused(self):
        async def main():
            with plait.Publisher("test", listen="tcp://127.0.0.1:0") as publisher:
                for topic in ("test", publisher.urls[0]):
                    subscriber = plait.aio.subscribe(topic)
                    waiting = asyncio.create_task(subscriber.next())
                    await asyncio.sleep(0)
                    with self.assertRaises(plait.Error) as caught:
                        await subscriber.next()
                    self.assertEqual(caught.exception.code, errno.EBUSY)
                    while subscriber.publishers == 0:
                        await asyncio.sleep(0.001)
                    publisher.publish("heard")
                    self.assertEqual((await waiting).text, "heard")
                    subscriber.close()

        self.run_async(main())

    def test_closing_ends_an_attempt_to_connect(self):
        path = os.path.join(self.directory, "topic")

        async def main():
            publisher = plait.Publisher("test", listen=f"unix://{path}")
            subscriber = plait.aio.subscribe(f"unix://{path}")
            await subscriber.__aenter__()
            publisher.close()
            waiting = asyncio.create_task(subscriber.next())
            while subscriber._attempt is None:
                await asyncio.sleep(0.001)
            subscriber.close()
            with self.assertRaises(plait.Error):
                await waiting

        self.run_async(main())


class Publishers(Loop):
    async def drain(self, subscriber, count):
        """COUNT messages of SUBSCRIBER, which isn't asyncio's."""
        messages = []
        while len(messages) < count:
            try:
                messages.append(subscriber.next(timeout=0))
            except plait.TimeoutError:
                await asyncio.sleep(0.001)
        return messages

    async def fill(self, publisher):
        """As many messages as go without a wait: how many those were."""
        count = 0
        while publisher._core._ready(1000):
            await publisher.publish(b"x" * 1000)
            count += 1
        return count

    def test_what_is_published_is_heard_and_a_latest_publisher_never_waits(self):
        async def main():
            async with plait.aio.Publisher("test") as publisher, plait.aio.subscribe("test", timeout=PATIENCE) as subscriber:
                self.assertEqual((publisher.topic, publisher.subscribers, publisher.urls), ("test", 1, []))
                for data in (b"bytes", "text", [1], None, b"x" * 100_000):
                    await publisher.publish(data)
                    self.assertEqual(len(await subscriber.next()), 3 if data == [1] else len(data or b""))
                await publisher.publish(json=3)
                self.assertEqual((await subscriber.next()).json(), 3)
                for i in range(10_000):
                    publishing = publisher.publish(b"x" * 100)
                    with self.assertRaises(StopIteration):
                        publishing.send(None)  # it is over without a wait
            self.assertTrue(publisher.closed)
            self.assertIn("plait.aio.Publisher of 'test', closed", repr(publisher))

        self.run_async(main())

    def test_a_reliable_one_waits_for_a_slow_subscriber_and_loses_nothing(self):
        async def main():
            async with plait.aio.Publisher("test", reliable=True, timeout=PATIENCE) as publisher:
                with plait.subscribe("test") as subscriber:
                    async def publish():
                        for i in range(3000):
                            await publisher.publish(b"%d" % i + b"x" * 1000)

                    publishing = asyncio.create_task(publish())
                    await asyncio.sleep(0)
                    while publisher._queue == 0:
                        await asyncio.sleep(0)
                    for _ in range(10):
                        await asyncio.sleep(0.002)  # others go on while it waits
                    self.assertFalse(publishing.done())
                    messages = await self.drain(subscriber, 3000)
                    await publishing
                    self.assertEqual([int(bytes(message).rstrip(b"x")) for message in messages], list(range(3000)))
                    self.assertEqual(sum(message.lost for message in messages), 0)

        self.run_async(main())

    def test_tasks_that_wait_publish_in_the_order_of_their_calls(self):
        async def main():
            async with plait.aio.Publisher("test", reliable=True, timeout=PATIENCE) as publisher:
                with plait.subscribe("test") as subscriber:
                    count = await self.fill(publisher)
                    tasks = [asyncio.create_task(publisher.publish([i] * 100)) for i in range(100)]
                    await asyncio.sleep(0)
                    messages = await self.drain(subscriber, count + 50)
                    tasks += [asyncio.create_task(publisher.publish([i] * 100)) for i in range(100, 200)]
                    messages += await self.drain(subscriber, 150)
                    await asyncio.gather(*tasks)
                    self.assertEqual([message.json()[0] for message in messages[count:]], list(range(200)))

        self.run_async(main())

    def test_cancelled_while_it_waits_it_has_published_nothing(self):
        async def main():
            async with plait.aio.Publisher("test", reliable=True, timeout=PATIENCE) as publisher:
                with plait.subscribe("test") as subscriber:
                    count = await self.fill(publisher)
                    waiting = asyncio.create_task(publisher.publish(b"n" * 1000))
                    await asyncio.sleep(0)
                    waiting.cancel()
                    with self.assertRaises(asyncio.CancelledError):
                        await waiting
                    await self.drain(subscriber, count)
                    await asyncio.sleep(0.02)  # for what must not come
                    await publisher.publish("after")
                    message = (await self.drain(subscriber, 1))[0]
                    self.assertEqual((message.text, message.number), ("after", count + 1))

        self.run_async(main())

    def test_who_is_stuck_for_longer_than_its_timeout_is_left_behind(self):
        async def main():
            async with plait.aio.Publisher("test", reliable=True, timeout=0.05) as publisher:
                with plait.subscribe("test") as subscriber:
                    for _ in range(1000):
                        await publisher.publish(b"x" * 1000)
                    message = (await self.drain(subscriber, 1))[0]
                    self.assertRegex(message.lost_text, "dropped: stuck")

        self.run_async(main())

    def test_it_waits_for_as_many_subscribers_as_it_wants(self):
        async def main():
            async with plait.aio.Publisher("test", wait_subscribers=1, timeout=0.02) as publisher:
                with self.assertRaisesRegex(plait.TimeoutError, "0 of 1 subscribers"):
                    await publisher.publish(b"never")
            async with plait.aio.Publisher("test", wait_subscribers=1, timeout=None) as publisher:
                waiting = asyncio.create_task(publisher.publish(b"heard"))
                await asyncio.sleep(0)
                async with plait.aio.subscribe("test", timeout=PATIENCE) as subscriber:
                    self.assertEqual(bytes(await subscriber.next()), b"heard")
                await waiting

        self.run_async(main())

    def test_closing_ends_the_wait_of_a_task_and_a_closed_one_says_so(self):
        async def main():
            publisher = plait.aio.Publisher("test", wait_subscribers=1, timeout=None)
            waiting = asyncio.create_task(publisher.publish(b"never"))
            await asyncio.sleep(0)
            publisher.close()
            publisher.close()
            for publishing in (waiting, publisher.publish(b"")):
                with self.assertRaisesRegex(plait.Error, "closed") as caught:
                    await publishing
                self.assertEqual(caught.exception.code, errno.EBADF)

        self.run_async(main())

    def test_its_end_leaves_the_loop_to_others_while_a_socket_takes_nothing(self):
        async def main():
            publisher = plait.aio.Publisher("test", reliable=True, listen="tcp://127.0.0.1:0", timeout=1.0)
            with plait.subscribe(publisher.urls[0]):
                while publisher._core._ready(100_000):
                    await publisher.publish(b"x" * 100_000)
                held = await self.longest_hold(publisher.__aexit__(None, None, None))
                self.assertTrue(publisher.closed)
                self.assertLess(held, 0.9)

        self.run_async(main())

    def test_mistakes_are_told(self):
        async def main():
            for wrong in ((3,), ()):
                self.assertRaises(TypeError, plait.aio.Publisher, *wrong)
            self.assertRaises(plait.Error, plait.aio.Publisher, "bad name!")
            async with plait.aio.Publisher("test") as publisher:
                for data, named in (((3,), {}), ((), {}), ((b"",), {"json": 1})):
                    with self.assertRaises(TypeError):
                        await publisher.publish(*data, **named)

        self.run_async(main())
