"""Loans: memory that is lent for one message. And what there is where numpy isn't."""

import gc
import subprocess
import sys

from support import Case, PATIENCE, plait


class Loans(Case):
    def test_a_loan_is_written_and_sent_once(self):
        self.server({"": lambda request: request.body, "size": lambda request: str(len(request.body))})
        client = self.connect()
        for size in (0, 5, 100_000, 3_000_000):
            loan = client.loan(size)
            self.assertEqual(len(loan), size)
            memoryview(loan)[:] = b"l" * size
            self.assertEqual(bytes(client.call("", loan)), b"l" * size)
            self.assertRaisesRegex(ValueError, "over", client.call, "", loan)
            self.assertRaises(BufferError, memoryview, loan)
            self.assertIn("over", repr(loan))

    def test_a_view_of_a_loan_that_was_sent_is_still_memory(self):
        self.server({"": lambda request: None})
        client = self.connect()
        loan = client.loan(1_000_000)
        view = memoryview(loan)
        client.call("", loan)
        client.close()
        del loan, client
        gc.collect()
        view[0], view[-1] = 1, 2

    def test_loans_that_are_given_back_or_forgotten_are_lent_again(self):
        self.server({"": lambda request: request.body})
        client = self.connect()
        for _ in range(200):
            with client.loan(100_000):
                pass
            client.loan(100_000).abort()
            client.loan(100_000)
        self.assertEqual(bytes(client.call("", b"x")), b"x")

    def test_all_that_are_out_is_an_error_that_says_so(self):
        self.server({"": lambda request: request.body})
        client = self.connect()
        kept = []
        with self.assertRaises(plait.Error) as caught:
            for _ in range(100):
                kept.append(client.loan(10_000, timeout=0.05))
        self.assertEqual((caught.exception.code, len(kept)), (105, 64))
        kept.pop().abort()
        self.assertEqual(len(client.loan(10_000, timeout=PATIENCE)), 10_000)

    def test_a_loan_goes_one_way_and_through_any_client_and_publisher(self):
        self.server({"": lambda request: request.body})
        client, other = self.connect(), self.connect("test?shm=off")
        publisher = plait.Publisher("told")
        self.addCleanup(publisher.close)
        subscriber = plait.subscribe("told", timeout=PATIENCE)
        self.addCleanup(subscriber.close)
        for lender in (client, other):
            for sender in (client, other):
                loan = lender.loan(100_000)
                memoryview(loan)[:] = b"m" * 100_000
                self.assertEqual(bytes(sender.call("", loan)), b"m" * 100_000)
            lender.send("", lender.loan(100_000))
            loan = lender.loan(100_000)
            memoryview(loan)[:] = b"p" * 100_000
            publisher.publish(loan)
            self.assertEqual(bytes(subscriber.next()), b"p" * 100_000)

    def test_mistakes_are_told(self):
        self.server({"": lambda request: request.body})
        client = self.connect()
        self.assertRaises(ValueError, client.loan, -1)
        self.assertRaises(TypeError, client.loan, "3")
        with self.assertRaises(plait.Error) as caught:
            client.loan(1 << 40)
        self.assertEqual(caught.exception.code, 90)


class WithoutNumpy(Case):
    def test_arrays_without_numpy_say_what_to_install_and_the_rest_works(self):
        said = subprocess.run([sys.executable, "-c",
            "import sys; sys.modules['numpy'] = None\nimport plait\np = plait.Publisher('test')\n"
            "s = plait.subscribe('test', timeout=60)\np.publish(b'abc')\nm = s.next()\nprint(bytes(m))\n"
            "for f in (lambda: m.array('u1'), lambda: p.loan(3, 'u1')):\n"
            "    try: f()\n    except ImportError as e: print(e)"], capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(said.stderr, "")
        self.assertEqual(said.stdout.count("install python3-numpy"), 2)
        self.assertIn("b'abc'", said.stdout)

    def test_numpy_is_not_imported_before_it_is_used(self):
        said = subprocess.run([sys.executable, "-c", "import sys, plait, plait.aio; print('numpy' in sys.modules)"],
                              capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(said.stdout, "False\n")
