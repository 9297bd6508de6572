"""plait.aio: on the running loop, without threads."""

import asyncio
import errno
import os
import signal
import threading

from support import Loop, PATIENCE, plait
import plait.aio


class Aio(Loop):
    def test_a_hundred_concurrent_calls_without_a_thread(self):
        async def body():
            gate, arrived = asyncio.Event(), asyncio.Event()
            count = 0

            async def wait(request):
                nonlocal count
                count += 1
                if count == 100:
                    arrived.set()
                await gate.wait()
                return request.body

            server = plait.aio.Server("test")
            server.handle("wait", wait)
            async with server:
                async with await plait.aio.connect("test") as client:
                    tasks = [asyncio.create_task(client.call("wait", b"%d" % i)) for i in range(100)]
                    await arrived.wait()
                    self.assertEqual(len(os.listdir("/proc/self/task")), 1)
                    gate.set()
                    replies = await asyncio.gather(*tasks)
                    self.assertEqual([bytes(reply) for reply in replies], [b"%d" % i for i in range(100)])

        self.run_async(body())

    def test_plain_functions_are_handlers_too_and_errors_travel(self):
        async def body():
            server = plait.aio.Server("test")
            server.handle("plain", lambda request: request.text.upper())

            @server.method("boom")
            async def boom(request):
                raise KeyError("k")

            async with server, await plait.aio.connect("test") as client:
                self.assertEqual((await client.call("plain", "abc")).text, "ABC")
                self.assertEqual((await client.call("plain", json="x")).text, '"X"')
                with self.assertRaisesRegex(plait.RemoteError, "KeyError: 'k'"):
                    await client.call("boom")
                with self.assertRaises(plait.Error) as caught:
                    await client.call("absent")
                self.assertEqual(caught.exception.code, errno.EOPNOTSUPP)
                self.assertEqual((await client.call("plain", "on")).text, "ON")

        self.run_async(body())

    def test_cancelling_a_task_cancels_its_call(self):
        async def body():
            entered, seen = asyncio.Event(), asyncio.Event()

            async def wait(request):
                entered.set()
                while not request.cancelled:  # nothing tells of it, so this looks; run_async limits it
                    await asyncio.sleep(0.01)
                seen.set()

            server = plait.aio.Server("test")
            server.handle("wait", wait)
            server.handle("ok", lambda request: "ok")
            async with server, await plait.aio.connect("test") as client:
                task = asyncio.create_task(client.call("wait"))
                await entered.wait()
                task.cancel()
                with self.assertRaises(asyncio.CancelledError):
                    await task
                await seen.wait()
                self.assertEqual((await client.call("ok")).text, "ok")

        self.run_async(body())

    def test_a_call_that_takes_too_long(self):
        async def body():
            server = plait.aio.Server("test")

            @server.method()
            async def never(request):
                await asyncio.Event().wait()

            async with server, await plait.aio.connect("test") as client:
                with self.assertRaises(TimeoutError):
                    await client.call(timeout=0.02)

        self.run_async(body())

    def test_a_trace_reaches_what_a_handler_calls(self):
        async def body():
            inner, outer = plait.aio.Server("inner"), plait.aio.Server("outer")
            inner.handle("", lambda request: str(request.trace))
            outer.handle("", lambda request: relay())
            async with inner:
                client = await plait.aio.connect("inner")

                async def relay():
                    await asyncio.sleep(0)
                    return await client.call()

                outer_relay.append(relay)
                async with outer, await plait.aio.connect("outer") as caller:
                    self.assertEqual((await caller.call(trace=99)).text, "99")
                client.close()

        outer_relay = []

        def relay():
            return outer_relay[0]()

        self.run_async(body())

    def test_a_vanished_server_does_not_hold_the_loop_up(self):
        async def body():
            server = plait.aio.Server("test")
            server.handle("", lambda request: None)
            server.start()
            client = await plait.aio.connect("test", connect_timeout=1.5)
            await client.call()
            server.close()

            async def call():
                with self.assertRaises(plait.Error):
                    await client.call(timeout=1.5)
                with self.assertRaises(plait.Error):
                    await client.methods()

            self.assertLess(await self.longest_hold(call()), 0.9)
            client.close()

        self.run_async(body())

    def test_another_loop_is_refused(self):
        self.server({"": lambda request: None})

        async def make():
            return await plait.aio.connect("test")

        client = asyncio.run(make())

        async def use():
            with self.assertRaisesRegex(RuntimeError, "another event loop"):
                await client.call()

        asyncio.run(use())
        client.close()

    def test_two_loops_in_two_threads(self):
        self.server({"": lambda request: request.body})
        done = []

        async def work():
            async with await plait.aio.connect("test") as client:
                for _ in range(100):
                    await client.call("", b"x")
            done.append(1)

        threads = [threading.Thread(target=lambda: asyncio.run(work())) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual(len(done), 2)

    def test_a_loop_closed_under_a_pending_call(self):
        gate = self.gate()
        self.server({"": lambda request: [gate.wait(PATIENCE)]})
        loop = asyncio.new_event_loop()

        async def begin():
            client = await plait.aio.connect("test")
            future = loop.create_future()
            client._core._start(future)
            return client, future

        client, future = loop.run_until_complete(begin())
        loop.close()
        gate.set()
        client.close()
        self.assertTrue(client.closed)
        self.assertEqual(future.exception().code, errno.ECANCELED)

    def test_closing_ends_what_is_under_way(self):
        async def body():
            server, entered = plait.aio.Server("test"), asyncio.Event()

            @server.method()
            async def never(request):
                entered.set()
                await asyncio.Event().wait()

            async with server:
                client = await plait.aio.connect("test")
                task = asyncio.create_task(client.call())
                await entered.wait()
                client.close()
                with self.assertRaises(plait.Error) as caught:
                    await task
                self.assertEqual(caught.exception.code, errno.ECANCELED)

        self.run_async(body())

    def test_run_ends_with_stop(self):
        async def body():
            server = plait.aio.Server("test")
            server.handle("stop", lambda request: server.stop())
            task = asyncio.create_task(server.run())
            client = await plait.aio.connect("test")
            await client.call("stop")
            client.close()
            await task
            self.assertTrue(server.closed)

        self.run_async(body())

    def test_serve_serves_until_sigterm_or_ctrl_c(self):
        for number, said in ((signal.SIGTERM, "over\n"), (signal.SIGINT, "interrupted\n")):
            process = self.script(
                "import asyncio, plait.aio\nasync def nap(request): await asyncio.sleep(0); return request.body\n"
                "print('ready', flush=True)\ntry:\n"
                "    asyncio.run(plait.aio.serve('test', {'nap': nap, 'plain': lambda r: 'plain'}, listen='tcp://127.0.0.1:0'))\n"
                "    print('over')\nexcept KeyboardInterrupt: print('interrupted')")
            with plait.connect("test", connect_timeout=PATIENCE) as client:
                self.assertEqual((client.call("nap", "x").text, client.call("plain").text), ("x", "plain"))
                process.send_signal(number)
                out, err = process.communicate(timeout=PATIENCE)
            self.assertEqual((process.returncode, out, err), (0, said, ""))

        class Served:
            pass

        with self.assertRaisesRegex(TypeError, "class"):
            self.run_async(plait.aio.serve("test", Served))

    def test_a_send_and_tcp(self):
        async def body():
            arrived = asyncio.Event()
            server = plait.aio.Server("test")
            server.handle("note", lambda request: arrived.set())
            server.listen("tcp://127.0.0.1:0")
            async with server, await plait.aio.connect(server.urls[0]) as client:
                await client.send("note", "x")
                await arrived.wait()
                self.assertEqual(client.transport, "tcp")
                self.assertEqual(await client.methods(), ["note"])

        self.run_async(body())

    def test_a_send_without_room_leaves_the_loop_to_others(self):
        process = self.script("import plait\ns = plait.Server('stopped')\ns.handle('', lambda r: None)\ns.start()\n"
                              "print('ready', flush=True)\nimport time; time.sleep(1000)")

        async def body():
            async with await plait.aio.connect("stopped") as client:
                os.kill(process.pid, signal.SIGSTOP)
                waiting = set()
                while not waiting:  # until one doesn't go at once
                    sending = asyncio.create_task(client.send("", b"x" * 60_000, timeout=None))
                    _, waiting = await asyncio.wait({sending}, timeout=0.2)
                with self.assertRaises(plait.TimeoutError):
                    await client.send("", b"x" * 60_000, timeout=0.02)
                os.kill(process.pid, signal.SIGCONT)
                await sending

        self.run_async(body())

    def test_connecting_takes_no_thread(self):
        process = self.script("import plait\ns = plait.Server('other')\ns.handle('', len)\ns.start()\n"
                              "print('ready', flush=True)\ninput()", stdin=-1)
        start = threading.Thread.start

        def refuse(thread):
            raise AssertionError("a thread was started")

        async def body():
            server = plait.aio.Server("test")
            server.handle("", lambda request: "own")
            async with server, await plait.aio.connect("test") as own, await plait.aio.connect("other") as other:
                self.assertEqual((await own.call()).text, "own")
                with self.assertRaises(plait.RemoteError):
                    await other.call()  # len of a request

        threading.Thread.start = refuse
        self.addCleanup(setattr, threading.Thread, "start", start)
        self.run_async(body())
        process.communicate("\n", timeout=PATIENCE)

    def test_a_name_that_comes_later_is_waited_for(self):
        async def body():
            waiting = asyncio.create_task(plait.aio.connect("test"))
            await asyncio.sleep(0)  # it has looked, and found nobody
            server = plait.aio.Server("test")
            server.handle("", lambda request: "here")
            async with server, await waiting as client:
                self.assertEqual((await client.call()).text, "here")
            for timeout in (0, 0.02):
                with self.assertRaisesRegex(plait.NoSuchName, "test"):
                    await plait.aio.connect("test", connect_timeout=timeout)

        self.run_async(body())

    def test_a_server_that_says_nothing_does_not_hold_the_loop_up(self):
        import socket

        async def body():
            path = os.path.join(self.directory, "silent")
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(path)
                listener.listen()

                async def connect():
                    with self.assertRaises(TimeoutError):
                        await plait.aio.connect(f"unix://{path}", connect_timeout=1.0)

                self.assertLess(await self.longest_hold(connect()), 0.9)

        self.run_async(body())

    def test_a_call_goes_on_after_its_server_has_restarted(self):
        async def body():
            first = plait.aio.Server("test")
            first.handle("", lambda request: "first")
            first.start()
            async with await plait.aio.connect("test") as client:
                self.assertEqual((await client.call()).text, "first")
                self.assertEqual(await client.methods(), [""])
                first.close()
                call, arrived = asyncio.create_task(client.call()), asyncio.Event()
                send = asyncio.create_task(client.send("note"))
                await asyncio.sleep(0)  # they were begun
                second = plait.aio.Server("test")
                second.handle("", lambda request: "second")
                second.handle("note", lambda request: arrived.set())
                async with second:
                    self.assertEqual((await call).text, "second")
                    await send
                    await arrived.wait()
                    self.assertEqual(sorted(await client.methods()), ["", "note"])

        self.run_async(body())

    def test_a_client_that_is_forgotten_is_closed_and_complained_of(self):
        import gc
        import warnings

        async def body():
            server = plait.aio.Server("test")
            server.handle("", lambda request: None)
            async with server:
                client = await plait.aio.connect("test")
                descriptors = len(os.listdir("/proc/self/fd"))
                with warnings.catch_warnings(record=True) as seen:
                    warnings.simplefilter("always")
                    del client
                    gc.collect()
                self.assertEqual([warning.category for warning in seen], [ResourceWarning])
                self.assertLess(len(os.listdir("/proc/self/fd")), descriptors)

        self.run_async(body())

    def test_closed_objects_and_wrong_arguments(self):
        async def body():
            server = plait.aio.Server("test")
            server.handle("", lambda request: None)
            with self.assertRaises(TypeError):
                server.handle("x", 3)
            server.start()
            with self.assertRaises(plait.Error):
                server.start()
            client = await plait.aio.connect("test")
            for arguments, named in (((1,), {}), (("", 3), {}), (("", b"x"), {"json": 1}), ((), {"timeout": "1"}),
                                     ((), {"unknown": 1})):
                with self.assertRaises(TypeError, msg=(arguments, named)):
                    await client.call(*arguments, **named)
            for wrong in (None, 3):
                with self.assertRaises(TypeError):
                    await plait.aio.connect(wrong)
            await client.call()
            client.close()
            client.close()
            for use in (client.call, client.send, client.methods):
                with self.assertRaisesRegex(plait.Error, "closed"):
                    await use()
            server.close()
            server.close()
            self.assertRaises(plait.Error, server.start)

        self.run_async(body())

    def test_after_fork_a_client_refuses(self):
        async def body():
            server = plait.aio.Server("test")
            server.handle("", lambda request: "parent")
            async with server, await plait.aio.connect("test") as client:
                await client.call()
                child = os.fork()
                if child == 0:
                    code = 1
                    try:
                        client._core.call()
                    except plait.Error as error:
                        code = 0 if error.code == errno.ECHILD else 2
                    os._exit(code)
                self.assertEqual(os.waitpid(child, 0)[1], 0)
                self.assertEqual((await client.call()).text, "parent")

        self.run_async(body())

    def test_a_thousand_messages_that_do_not_fit_at_once_take_no_thread(self):
        start = threading.Thread.start

        def refuse(thread):
            raise AssertionError("a thread was started")

        threading.Thread.start = refuse
        self.addCleanup(setattr, threading.Thread, "start", start)

        async def body():
            server = plait.aio.Server("test")
            total = 0

            @server.method()
            async def add(request):
                nonlocal total
                total += len(request.body)
                return request.body

            async with server, await plait.aio.connect("test") as client:
                replies = await asyncio.gather(*(client.call("", b"x" * 8000) for _ in range(1000)))
                self.assertEqual((total, sum(map(len, replies))), (8_000_000, 8_000_000))

        self.run_async(body())
