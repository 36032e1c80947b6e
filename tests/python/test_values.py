# SPDX-License-Identifier: MIT
"""test_values.py - values as bytes and back, in this process: every type, hostile bytes, no leaks.

timeout: 240
"""
import array
import collections
import dataclasses
import decimal
import enum
import fractions
import gc
import math
import os
import pickle
import random
import struct
import sys
import tracemalloc
import unittest

from yoke import _yoke

try:
    import numpy
except ImportError:
    numpy = None

SEED = int(os.environ.get("SEED", "20261122"))
ROUNDS = int(os.environ.get("ROUNDS", "300"))


def there_and_back(value):
    return _yoke.decode_value(_yoke.encode_value(value))


def call(*args, **kwargs):
    keep = []
    return _yoke.decode_call(_yoke.encode_call(args, kwargs, keep))


class Number(enum.IntEnum):
    ONE = 1


class Int(int):
    pass


class Str(str):
    pass


class Bytes(bytes):
    pass


class Float(float):
    pass


@dataclasses.dataclass
class Record:
    a: object
    b: object = None


Pair = collections.namedtuple("Pair", "a b")


def same(a, b):
    """Equal, and of the same types all through."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return len(a) == len(b) and all(
            same(k, m) and same(v, w) for (k, v), (m, w) in zip(a.items(), b.items())
        )
    if isinstance(a, Record):
        return same(a.a, b.a) and same(a.b, b.b)
    return a == b


EDGES = [
    None, True, False, Ellipsis, NotImplemented, 0, -1, 1, 2**31, -(2**31), 2**63 - 1, -(2**63), 2**63,
    -(2**63) - 1, 2**64, 10**5000, -(10**400), 0.0, -0.0, math.inf, -math.inf, 5e-324, 1.7e308, 1j,
    "", "a", "\0", "ä", "€", "\U0001f600", "a" * 300, "ä" * 70000, "\ud800", "a\udfffb", b"", b"\0",
    bytes(range(256)), b"x" * 70000, bytearray(b"ab"), (), [], {}, set(), frozenset({1}), (1,), [None],
    {"a": 1}, {1: {2: {3: []}}}, Number.ONE, Int(7), Str("s"), Bytes(b"b"), Float(1.5), Record(1, [2]),
    Pair(1, 2), decimal.Decimal("1.10"), fractions.Fraction(1, 3), range(5), slice(1, 2), len, int, Record,
    dict.fromkeys, array.array("d", [1.0, 2.0]), collections.OrderedDict(a=1), collections.deque([1], 3),
]  # fmt: skip


def random_value(rng, depth=4):
    pick = rng.randrange(14 if depth else 9)
    if pick == 0:
        return rng.choice([None, True, False])
    if pick == 1:
        return rng.randrange(-(2 ** rng.randrange(1, 200)), 2 ** rng.randrange(1, 200))
    if pick == 2:
        return struct.unpack("d", rng.randbytes(8))[0]
    if pick in (3, 4):
        top = rng.choice([0x7F, 0xFF, 0xFFFF, 0x10FFFF])
        return "".join(chr(rng.randrange(top)) for _ in range(rng.randrange(20)))
    if pick == 5:
        return rng.randbytes(rng.choice([0, 1, 10, 300]))
    if pick == 6:
        return rng.choice([Number.ONE, Int(3), Str("s"), Float(0.5), Bytes(b"q")])
    if pick in (7, 8):
        return rng.randrange(-10, 10)
    many = [random_value(rng, depth - 1) for _ in range(rng.randrange(5))]
    if pick == 9:
        return many
    if pick == 10:
        return tuple(many)
    if pick == 11:
        return {random_value(rng, 0): value for value in many}
    if pick == 12:
        return Record(many, None)
    return Pair(many, 1)


class Values(unittest.TestCase):
    def test_edges(self):
        for value in EDGES:
            with self.subTest(str(type(value))):
                self.assertTrue(same(there_and_back(value), value))
                args, kwargs = call(value, 1, name=value)
                self.assertTrue(same(args, (value, 1)) and same(kwargs, {"name": value}))
        self.assertTrue(math.isnan(there_and_back(math.nan)))
        for constant in (None, True, False, Ellipsis, NotImplemented, Number.ONE, int, len):
            self.assertIs(there_and_back(constant), constant)

    def test_plain_values_need_no_pickle(self):
        for value in (None, True, 5, -(2**63), 2**63 - 1, 1.5, "abc", "äö", b"abc"):
            self.assertNotIn(b"P", _yoke.encode_value(value)[:1], value)
        for value in (2**63, "\ud800", Number.ONE, Int(3), Str("s"), Float(1), Bytes(b""), [], ()):
            self.assertEqual(_yoke.encode_value(value)[:1], b"P", value)
        self.assertEqual(_yoke.encode_value(258), b"i" + struct.pack("<q", 258))
        self.assertEqual(_yoke.encode_value("ä"), b"s" + struct.pack("<I", 2) + "ä".encode())
        self.assertEqual(_yoke.encode_call((1,), {"k": None}),
                         struct.pack("<HH", 1, 1) + _yoke.encode_value(1) + b"s\1\0\0\0kN")

    def test_random_values(self):
        rng = random.Random(SEED)
        for number in range(ROUNDS):
            value = random_value(rng)
            try:
                wanted = pickle.loads(pickle.dumps(value, 5))
            except TypeError:
                continue
            with self.subTest(number):
                if same(value, wanted):
                    self.assertTrue(same(there_and_back(value), value), value)
                    args, kwargs = call(value, *[value] * rng.randrange(3), k=value)
                    self.assertTrue(all(same(arg, value) for arg in args))
                    self.assertTrue(same(kwargs["k"], value))

    def test_many_arguments(self):
        for count in (0, 1, 7, 8, 9, 10, 255, 5000, 0xFFFE, 0xFFFF, 70000):
            args = tuple(range(count))
            self.assertEqual(call(*args), (args, {}))
        names = {f"k{i}": i for i in range(300)}
        self.assertEqual(call(1, **names), ((1,), names))
        self.assertEqual(call(1, [2], **names), ((1, [2]), names))
        self.assertEqual(list(call(**names)[1]), list(names))
        self.assertEqual(call(ä=1, **{"no identifier": 2, "\ud800": 3}),
                         ((), {"ä": 1, "no identifier": 2, "\ud800": 3}))

    def test_what_is_the_same_object_stays_so(self):
        shared = [1]
        (a, b, (c,)), kwargs = call(shared, shared, (shared,), k=shared)
        self.assertIs(a, b)
        self.assertIs(a, c)
        self.assertIs(kwargs["k"], a)
        shared.append(shared)
        (a,), _ = call(shared)
        self.assertIs(a[1], a)

    def test_deep_nesting(self):
        for depth in (10, 15, 16, 17, 100, 200):
            value = []
            for _ in range(depth):
                value = [value]
            self.assertEqual(there_and_back(value), value)
        for _ in range(200000):
            value = [value]
        with self.assertRaises((RecursionError, pickle.PicklingError)):
            _yoke.encode_value(value)
        self.assertEqual(there_and_back([1]), [1])
        while value:  # a deep list is taken apart without deep recursion
            value = value[0]

    def test_large_values(self):
        for value in ("x" * 5_000_000, "ö" * 3_000_000, b"y" * 5_000_000, list(range(200_000)),
                      bytearray(b"z" * 3_000_000), {i: str(i) for i in range(50_000)}):
            self.assertTrue(there_and_back(value) == value)
            self.assertTrue(call(value)[0][0] == value)

    def test_errors_of_values_come_through(self):
        class Bad:
            def __reduce__(self):
                raise ZeroDivisionError("reduce")

        for value in (Bad(), [1, Bad()], {"a": Bad()}):
            with self.assertRaises(ZeroDivisionError):
                _yoke.encode_value(value)
            with self.assertRaises(ZeroDivisionError):
                _yoke.encode_call((1, value), {}, [])
        with self.assertRaises(TypeError):
            _yoke.encode_value(sys._getframe())
        raises = pickle.PROTO + b"\x05cbuiltins\nint\n(S'x'\ntR."
        with self.assertRaises(ValueError):
            _yoke.decode_value(b"P" + struct.pack("<II", len(raises), 0) + raises)

    def test_a_pickle_that_submits_while_it_is_made(self):
        class Nested:
            def __reduce__(self):
                inner = _yoke.decode_value(_yoke.encode_value([1, "x" * 100]))
                return list, (inner,)

        self.assertEqual(call(Nested(), 2)[0], ([1, "x" * 100], 2))


class Buffers(unittest.TestCase):
    """Arrays of the array module have no buffers of protocol 5; PickleBuffer has."""

    class Carrier:
        def __init__(self, data):
            self.data = data

        def __reduce_ex__(self, protocol):
            return Buffers.Carrier, (pickle.PickleBuffer(self.data),)

    def test_sizes_round_the_limit(self):
        for size in (0, 1, 100, 16383, 16384, 16385, 65536, 1 << 21):
            data = bytearray(random.Random(size).randbytes(size))
            for send in (there_and_back, lambda value: call(value)[0][0]):
                back = send(self.Carrier(data))
                self.assertEqual(bytes(back.data), data)
                self.assertFalse(memoryview(back.data).readonly)
                back = send(self.Carrier(bytes(data)))
                self.assertEqual(bytes(back.data), data)
                self.assertTrue(memoryview(back.data).readonly)

    def test_many_buffers_in_order(self):
        values = [self.Carrier(bytearray(bytes([i]) * (16384 + i))) for i in range(50)]
        values.insert(3, self.Carrier(b"small"))
        for back in (there_and_back(values), call(*values)[0], call(values)[0][0]):
            self.assertEqual([bytes(b.data) for b in back], [bytes(v.data) for v in values])

    def test_results_are_aligned(self):
        back = there_and_back([self.Carrier(bytearray(16384 + i)) for i in range(5)])
        bytes_ = _yoke.encode_value([self.Carrier(bytearray(b"\xee" * 16385)) for _ in range(3)])
        self.assertEqual(len(bytes_) % 64, 0)
        self.assertEqual(len(back), 5)

    def test_views_outlive_the_rest(self):
        back = there_and_back([self.Carrier(bytearray(b"a" * 20000)), self.Carrier(b"b" * 20000)])
        first = back[0].data
        del back
        gc.collect()
        self.assertEqual(bytes(first), b"a" * 20000)

    def test_blocks_are_freed(self):
        gc.collect()
        self.assertEqual(_yoke.blocks_kept(), 0)
        keep = []
        value = self.Carrier(bytearray(b"a" * 100_000))
        data = _yoke.encode_call((value,), {}, keep)
        (back,), _ = _yoke.decode_call(data)
        (again,), _ = _yoke.decode_call(data)
        keep.clear()
        self.assertEqual(_yoke.blocks_kept(), 1)
        self.assertEqual(bytes(back.data), b"a" * 100_000)
        del back
        self.assertEqual(_yoke.blocks_kept(), 1)
        again.data[0:1] = b"b"
        del again
        self.assertEqual(_yoke.blocks_kept(), 0)
        data = _yoke.encode_call((value,), {}, keep)
        keep.clear()
        self.assertEqual(_yoke.blocks_kept(), 0)
        with self.assertRaises((ValueError, EOFError)):
            _yoke.decode_call(data[:-24] + struct.pack("<QQQ", 0x1000, 100_000, 0))

    def test_an_error_after_buffers_frees_them(self):
        class Bad:
            def __reduce__(self):
                raise ZeroDivisionError

        value = self.Carrier(bytearray(100_000))
        for _ in range(3):
            with self.assertRaises(ZeroDivisionError):
                _yoke.encode_call((value, [value], Bad()), {}, [])
            with self.assertRaises(ZeroDivisionError):
                _yoke.encode_value([value, Bad()])
        value.data.append(1)  # nothing exports it any more

    @unittest.skipIf(numpy is None, "no numpy")
    def test_numpy(self):
        rng = numpy.random.default_rng(SEED)
        arrays = [
            rng.random((100, 100)), numpy.asfortranarray(rng.random((100, 100))),
            rng.random((100, 100))[::2], rng.random((100, 100)).T, numpy.arange(10), numpy.array(5),
            numpy.zeros(0), numpy.zeros((3, 0, 4)), numpy.array(["a", None], dtype=object),
            numpy.zeros(9000, dtype=[("a", "i4"), ("b", "f8")]), rng.random(300_000),
            numpy.array(["x" * 50] * 1000), numpy.float64(1.5), numpy.int32(7), numpy.bool_(True),
        ]  # fmt: skip
        for value in arrays:
            for back in (there_and_back(value), call(value)[0][0]):
                self.assertIs(type(back), type(value))
                self.assertEqual(back.dtype, value.dtype)
                self.assertTrue(numpy.array_equal(back, value))
                if isinstance(value, numpy.ndarray):
                    self.assertTrue(back.flags.writeable and back.flags.aligned)
                    if value.flags.contiguous:
                        self.assertEqual(back.flags.f_contiguous, value.flags.f_contiguous)
        fixed = rng.random(5000)
        fixed.flags.writeable = False
        self.assertFalse(there_and_back(fixed).flags.writeable)
        self.assertFalse(call(fixed)[0][0].flags.writeable)
        a, b = call([fixed, fixed], arrays[0])[0]
        self.assertIs(a[0], a[1])
        self.assertTrue(numpy.array_equal(b, arrays[0]))


class Hostile(unittest.TestCase):
    def decode(self, data):
        """What the bytes say, or an exception; never anything worse."""
        for reader in (_yoke.decode_value, _yoke.decode_call):
            try:
                reader(data)
            except (Exception, RecursionError) as exc:
                self.assertNotIsInstance(exc, SystemError)

    def test_cut_and_flipped(self):
        rng = random.Random(SEED)
        valid = [_yoke.encode_value(v) for v in (1, 1.5, "abc", "äö", b"xyz", None, [1, {"a": 2}])]
        valid += [_yoke.encode_call(a, k) for a, k in (((1, "a", None), {"k": 2.5}), ((), {}),
                                                       (([1], 2), {"x": "y"}))]
        valid.append(_yoke.encode_value(Buffers.Carrier(bytearray(20000)))[:400])
        for data in valid:
            for cut in range(min(len(data), 200)):
                self.decode(data[:cut])
        for _ in range(ROUNDS * 20):
            data = bytearray(rng.choice(valid))
            # Not inside a pickle, which may do anything: only what our own readers look at.
            limit = len(data) if data[:1] != b"P" and data[:2] != b"\xff\xff" else 13
            for _ in range(rng.randrange(1, 4)):
                data[rng.randrange(min(limit, len(data)))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF,
                                                                         rng.randrange(256)])
            if len(data) > 60 and rng.random() < 0.5:
                data[-24:] = struct.pack("<QQQ", *(rng.choice(
                    [0, 1, 64, 2**31, 2**63, 2**64 - 1, 2**64 - 64]) for _ in range(3)))
            self.decode(bytes(data))

    def test_lengths_beyond_the_end(self):
        for tag in b"sbP":
            for length in (1, 2, 100, 2**31 - 1, 2**31, 2**32 - 1):
                self.decode(bytes([tag]) + struct.pack("<I", length))
                self.decode(bytes([tag]) + struct.pack("<II", length, length) + b"x")
                self.decode(bytes([tag]) + struct.pack("<II", 2, length) + b"N.")
        for nargs, nkw in ((1, 0), (0, 1), (0xFFFE, 0xFFFF), (0xFFFF, 0), (0xFFFF, 5), (3, 3)):
            self.decode(struct.pack("<HH", nargs, nkw))
            self.decode(struct.pack("<HH", nargs, nkw) + b"NN")
        with self.assertRaises(EOFError):
            _yoke.decode_value(b"")
        with self.assertRaises(EOFError):
            _yoke.decode_value(b"?")
        with self.assertRaises(UnicodeDecodeError):
            _yoke.decode_value(b"s\1\0\0\0\xff")

    def test_what_is_no_call(self):
        head = struct.pack("<HH", 0xFFFF, 0)
        for value in (1, (), ((), {}, 1), ([], {}), ((), []), ((1,), {1: 2}), ((1,), {"a": 2, 3: 4})):
            with self.assertRaises(ValueError):
                _yoke.decode_call(head + _yoke.encode_value(value))
        for name in (1, None, b"k", ["k"]):
            with self.assertRaises(ValueError):
                _yoke.decode_call(struct.pack("<HH", 0, 1) + _yoke.encode_value(name) + b"N")

    def test_buffers_outside(self):
        whole = _yoke.encode_value(Buffers.Carrier(bytearray(b"q" * 20000)))
        at = whole.index(struct.pack("<QQ", 20000, 0)) - 8
        size = len(whole)
        for place, length in ((0, size + 1), (size, 1), (size + 1, 0), (1, size), (2**64 - 1, 2),
                              (2**63, 2**63), (64, 2**64 - 64), (0, 2**63)):
            data = whole[:at] + struct.pack("<QQ", place, length) + whole[at + 16:]
            with self.assertRaises(ValueError):
                _yoke.decode_value(data)
        data = whole[:at] + struct.pack("<QQ", size - 5, 5) + whole[at + 16:]
        self.assertEqual(bytes(_yoke.decode_value(data).data), whole[-5:])


class Leaks(unittest.TestCase):
    def check(self, work, rounds=1000, most_bytes=20_000, first=50):
        def settle():
            gc.collect()
            clear()  # the cache of types keeps names looked up, and each pickle brings new ones

        clear = getattr(sys, "_clear_internal_caches", None) or sys._clear_type_cache

        tracemalloc.start()
        try:
            for _ in range(first):
                work()
            settle()
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(rounds):
                work()
            settle()
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        self.assertLess(grown, most_bytes)

    def test_values(self):
        for value in EDGES[:-6]:
            with self.subTest(str(type(value))):
                self.check(lambda: (there_and_back(value), call(value, k=value)), 100)

    def test_references(self):
        value, other = [object()][:0], "a" + str(SEED)
        counts = [sys.getrefcount(x) for x in (value, other, None)]
        for _ in range(1000):
            there_and_back(value)
            call(value, other, k=other)
        self.assertEqual([sys.getrefcount(x) for x in (value, other)], counts[:2])
        self.assertLess(abs(sys.getrefcount(None) - counts[2]), 100)

    def test_errors(self):
        class Bad:
            def __reduce__(self):
                raise ZeroDivisionError

        def work():
            for job in (lambda: there_and_back(Bad()), lambda: call(Buffers.Carrier(bytearray(20000)), Bad()),
                        lambda: _yoke.decode_value(b"s\xff\0\0\0"), lambda: _yoke.decode_call(b"\5\0\1\0NN"),
                        lambda: _yoke.decode_call(b"\2\0\1\0NNNN")):
                try:
                    job()
                except Exception:
                    pass

        self.check(work)

    def test_buffers(self):
        value = Buffers.Carrier(bytearray(100_000))
        self.check(lambda: (there_and_back(value), call(value, [value])), 300)
        self.assertEqual(_yoke.blocks_kept(), 0)

    def test_definitions(self):
        def work():
            k = [1]

            def function(n):
                return function(n - 1) + k[0] if n else 0

            made = _yoke.definition(function, None)
            self.assertEqual(_yoke.load_definition(made.place)(3), 3)

        self.check(work, 800, 500_000, first=1100)  # a worker keeps 1024

    def test_classes(self):
        def work():
            class Local:
                def __init__(self):
                    self.n = 5

                def get(self):
                    return Local, self.n

            keep = []
            data = _yoke.encode_call((Local(),), {}, keep)
            (back,), _ = _yoke.decode_call(data)
            assert back.get()[1] == 5

        self.check(work, 200, 300_000, first=1100)


if __name__ == "__main__":
    unittest.main()
