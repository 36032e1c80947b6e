# SPDX-License-Identifier: MIT
"""test_pickling.py - functions and classes of __main__, closures, and what they read.

Each test is a program of its own, since what is tested is what its __main__ has. timeout: 300
"""
import gc
import os
import pickle
import subprocess
import sys
import textwrap
import unittest
import weakref

import kit
import yoke
from yoke import _errors, _pickling, _reading, _yoke

BEGIN = """
    import dataclasses, enum, functools, os, sys, typing, collections, abc, threading, time
    import yoke
    START = {start!r}
    def check(got, wanted):
        assert got == wanted, f"got {{got!r}}, wanted {{wanted!r}}"
    def same(got, wanted):
        assert got is wanted, f"got {{got!r}}, not the same as {{wanted!r}}"
    def pool(**more):
        return yoke.Pool(workers=1, start=START, **more)
"""


def program(text, start="fresh", options=(), stdin=None):
    """Run it as __main__; it must end well."""
    head = textwrap.dedent(BEGIN).format(start=start)
    code = head + textwrap.dedent(text)
    command = [sys.executable, *options]
    command += ["-"] if stdin else ["-c", code]
    done = subprocess.run(command, input=code if stdin else None, capture_output=True, text=True,
                          timeout=3 * kit.LIMIT_S)
    if done.returncode != 0:
        raise AssertionError(f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


@kit.each(**kit.BOTH)
class Functions:
    def run_main(self, text):
        return program(text, self.start)

    def test_recursion_and_globals(self):
        self.run_main("""
            limit = 3
            def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
            def even(n): return True if n == 0 else odd(n - 1)
            def odd(n): return False if n == 0 else even(n - 1)
            def below(n, by=1, *, more=0): return n < limit + by + more
            with pool() as p:
                check(p.submit(fib, 15).result(), 610)
                check(p.submit(even, 10).result(), True)
                check(p.submit(odd, 10).result(), False)
                check(p.submit(below, 3).result(), True)
                check(p.submit(below, 5, more=9).result(), True)
        """)

    def test_a_changed_global_is_seen_by_a_new_function(self):
        self.run_main("""
            p = pool()
            value, items, table = 1, [1], {"a": [1]}
            def one(): return value
            def all_of(): return list(items), dict(table)
            if START == "fresh":
                check(p.submit(one).result(), 1)
                first = p.submit(all_of)
                value = 2; items.append(2); table["b"] = 2
                check(p.submit(one).result(), 2)
                check(p.submit(all_of).result(), ([1, 2], {"a": [1], "b": 2}))
                check(first.result(), ([1], {"a": [1]}))
                value = 1
                check(p.submit(one).result(), 1)
            else:
                check(p.submit(all_of).result(), ([1], {"a": [1]}))
            p.shutdown()
        """)

    def test_what_an_initializer_sets_is_there(self):
        self.run_main("""
            model = None
            cache = {}
            def begin(x):
                global model
                model = x
                cache["begun"] = x
            def use(k):
                cache[k] = 1
                return model, sorted(cache, key=str)
            def count():
                global counter
                counter = globals().get("counter", 0) + 1
                return counter
            with pool(initializer=begin, initargs=("m",)) as p:
                check(p.submit(use, 1).result(), ("m", [1, "begun"]))
                check(p.submit(use, 2).result(), ("m", [1, 2, "begun"]))
                check(p.submit(lambda: model).result(), "m")
                check([p.submit(count).result() for _ in range(3)], [1, 2, 3])
        """)

    def test_a_redefined_function_is_another(self):
        self.run_main("""
            def f(): return g()
            def g(): return 1
            with pool() as p:
                check(p.submit(f).result(), 1)
                def f(): return 10 + g()
                check(p.submit(f).result(), 11)
                def g(): return 2
                if START == "fresh":
                    check(p.submit(f).result(), 12)
                f.__code__ = (lambda: 77).__code__
                check(p.submit(f).result(), 77)
        """)

    def test_closures(self):
        self.run_main("""
            def outer(k):
                count = 0
                def add(n):
                    nonlocal count
                    count += n * k
                    return count
                def get(): return count
                def rec(n): return 1 if n == 0 else n * rec(n - 1)
                return add, get, rec
            def both(add, get, n):
                add(n); add(n)
                return get()
            add, get, rec = outer(3)
            with pool() as p:
                check(p.submit(add, 2).result(), 6)
                # Made by fork, the worker has that closure itself, and has used it.
                check(p.submit(both, add, get, 5).result(), 30 if START == "fresh" else 36)
                check(p.submit(rec, 5).result(), 120)
                check(p.submit(lambda a, b=2, *, c=3: (a, b, c), 1).result(), (1, 2, 3))
                check([f.result() for f in [p.submit(lambda: i) for i in range(1)]], [0])
                x = 1
                f = lambda: x
                check(p.submit(f).result(), 1)
        """)

    def test_decorators(self):
        self.run_main("""
            def twice(f):
                @functools.wraps(f)
                def wrapper(*args): return f(*args) * 2
                return wrapper
            @twice
            def inc(n):
                "doc"
                return n + 1
            @functools.lru_cache(maxsize=None)
            def slow(n): return 1 if n == 0 else n + slow(n - 1)
            @functools.singledispatch
            def kind(x): return "any"
            def names(): return inc.__name__, inc.__doc__, inc.__wrapped__.__name__, slow.__name__
            with pool() as p:
                check(p.submit(inc, 1).result(), 4)
                check(p.submit(slow, 4).result(), 11)
                check(list(p.map(slow, [0, 1, 2])), [1, 2, 4])
                check(p.submit(names).result(), ("inc", "doc", "inc", "slow"))
                check(p.submit(functools.partial(inc, 4)).result(), 10)
                check(p.submit(functools.partial(pow, 2), 3).result(), 8)
                check(p.submit("a,b".split, ",").result(), ["a", "b"])
                check(p.submit(len, "abc").result(), 3)
        """)

    def test_modules_that_functions_reach(self):
        self.run_main("""
            import xml.etree.ElementTree
            import os.path as path
            import collections.abc as cabc
            def parse(t): return xml.etree.ElementTree.fromstring(t).tag
            def join(): return path.join("a", "b"), os.path.basename("x/y"), cabc.Sized.__name__
            class Box:
                made = os.sep
                def tag(self): return xml.etree.ElementTree.fromstring("<z/>").tag
            with pool() as p:
                check(p.submit(parse, "<b/>").result(), "b")
                check(p.submit(join).result(), ("a/b", "y", "Sized"))
                check(p.submit(Box().tag).result(), "z")
                check(p.submit(lambda: Box.made).result(), "/")
        """)

    def test_a_module_made_by_hand(self):
        self.run_main("""
            import types
            space = {"__name__": "made"}
            exec("K = 5\\ndef f(n): return g(n) + K\\ndef g(n): return n * 2", space)
            mod = types.ModuleType("hand")
            exec("def h(n): return n + 1\\nclass C:\\n    x = 3", mod.__dict__)
            sys.modules["hand"] = mod
            with pool() as p:
                check(p.submit(space["f"], 2).result(), 9)
                check(p.submit(mod.h, 2).result(), 3)
                c = p.submit(mod.C).result()
                same(type(c), mod.C)
        """)

    def test_functions_come_back_as_themselves(self):
        self.run_main("""
            def f(): return f
            def g(x): return x, [x]
            def make(n):
                def inner(m): return n + m
                return inner
            with pool() as p:
                same(p.submit(f).result(), f)
                a, (b,) = p.submit(g, f).result()
                same(a, f); same(b, f)
                same(p.submit(g, check).result()[0], check)
                inner = p.submit(make, 3).result()
                check(inner(4), 7)
                check(p.submit(inner, 5).result(), 8)
                check(p.submit(lambda: [i * i for i in range(3)]).result(), [0, 1, 4])
        """)

    def test_what_cannot_be_sent_says_so(self):
        self.run_main("""
            lock = threading.Lock()
            def f(): return lock.locked()
            def g(): return 1
            with pool() as p:
                for call in (lambda: p.submit(f), lambda: p.submit(g, lock),
                             lambda: p.submit(sum, (i for i in [1]))):
                    try:
                        call().result()
                    except (TypeError, yoke.TransferError) as exc:
                        check("lock" in str(exc) or "generator" in str(exc), True)
                    else:
                        check(START, "fork")  # a lock that was there is there
                check(p.submit(g).result(), 1)
        """)


@kit.each(**kit.BOTH)
class Classes:
    def run_main(self, text):
        return program(text, self.start)

    def test_dataclasses_enums_and_the_like(self):
        self.run_main("""
            @dataclasses.dataclass
            class Point:
                x: int
                y: list = dataclasses.field(default_factory=list)
            @dataclasses.dataclass(frozen=True, order=True, slots=True)
            class Slotted:
                x: int = 1
                y: str = "a"
            class Color(enum.Enum):
                RED = 1
                BLUE = "b"
                def nice(self): return self.name.lower()
            class Number(enum.IntEnum):
                ONE = 1
            class Bits(enum.Flag):
                A = 1
                B = 2
            class Named(typing.NamedTuple):
                a: int
                b: str = "x"
            Old = collections.namedtuple("Old", "p q")
            def same_back(x): return x
            def look(x): return type(x).__name__, dataclasses.asdict(x), len(dataclasses.fields(x))
            def nice(c): return c.nice(), c is Color.RED, isinstance(c, Color), Color(1) is c
            values = [Point(1, [2]), Slotted(3), Named(1), Old(1, 2), [Point(1), Point(2)]]
            with pool() as p:
                for value in values:
                    back = p.submit(same_back, value).result()
                    check(back, value)
                    same(type(back), type(value))
                for member in (Color.RED, Color.BLUE, Number.ONE, Bits.A, Bits.A | Bits.B):
                    same(p.submit(same_back, member).result(), member)
                check(p.submit(look, Point(1)).result(), ("Point", {"x": 1, "y": []}, 2))
                check(p.submit(look, Slotted()).result(), ("Slotted", {"x": 1, "y": "a"}, 2))
                check(p.submit(nice, Color.RED).result(), ("red", True, True, True))
                check(p.submit(lambda: Point(5)).result(), Point(5))
                same(p.submit(lambda: Color.BLUE).result(), Color.BLUE)
                check(p.submit(lambda: dataclasses.replace(Slotted(), x=9)).result(), Slotted(9))
                for cls in (Point, Slotted, Color, Number, Bits, Named, Old):
                    same(p.submit(same_back, cls).result(), cls)
                check(list(p.map(Point, range(3))), [Point(0), Point(1), Point(2)])
        """)

    def test_inheritance_super_and_metaclasses(self):
        self.run_main("""
            T = typing.TypeVar("T")
            class Meta(type):
                def __new__(m, name, bases, space, **kw):
                    made = super().__new__(m, name, bases, space)
                    made.made_by = "meta"
                    return made
                def __init__(cls, name, bases, space, **kw): super().__init__(name, bases, space)
                @property
                def shout(cls): return cls.__name__.upper()
            class Base(metaclass=Meta):
                def __init__(self, v): self.v = v
                def get(self): return self.v
                @classmethod
                def make(cls, v): return cls(v)
                @staticmethod
                def plus(a, b): return a + b
                @property
                def twice(self): return self.v * 2
            class Derived(Base):
                class Inner:
                    def hello(self): return "inner"
                def get(self): return super().get() + 1
                def other(self): return Friend(self.v)
                def __eq__(self, o): return type(o) is type(self) and o.v == self.v
            class Friend:
                def __init__(self, v): self.v = v
                def back(self): return Derived(self.v)
            class Abstract(abc.ABC):
                @abc.abstractmethod
                def f(self): ...
            class Concrete(Abstract):
                def f(self): return isinstance(self, Abstract)
            class Box(typing.Generic[T]):
                def __init__(self, x): self.x = x
                def get(self) -> T: return self.x
            class Error(Exception):
                def __init__(self, a, b): super().__init__(a, b); self.b = b
            def fail(): raise Error(1, 2)
            class Call:
                def __call__(self, n): return n + 1
            with pool() as p:
                d = Derived(1)
                check(p.submit(d.get).result(), 2)
                check(p.submit(Derived.make, 4).result(), Derived(4))
                check(p.submit(Base.plus, 4, 1).result(), 5)
                check(p.submit(lambda: (Derived(3).twice, Derived.made_by, Derived.shout)).result(),
                      (6, "meta", "DERIVED"))
                check(p.submit(lambda o: o.other().back(), d).result(), d)
                same(type(p.submit(d.other).result()), Friend)
                same(type(p.submit(Derived.Inner).result()), Derived.Inner)
                check(p.submit(Derived.Inner().hello).result(), "inner")
                check(p.submit(Concrete().f).result(), True)
                check(p.submit(Box[int](5).get).result(), 5)
                same(type(p.submit(lambda: Box("x")).result()), Box)
                exc = p.submit(fail).exception()
                same(type(exc), Error)
                check((exc.args, exc.b), ((1, 2), 2))
                check(p.submit(Call(), 1).result(), 2)
                check(p.submit(lambda: isinstance(d, Base)).result(), True)
        """)

    def test_a_worker_has_one_class(self):
        self.run_main("""
            class A:
                count = 0
                def __init__(self): self.b = B()
            class B: pass
            kept = []
            def keep(x): kept.append(x); return len(kept)
            def all_the_same():
                return len({type(x) for x in kept}), {type(x) is A for x in kept}
            def bump(): A.count += 1; return A.count
            with pool() as p:
                for n in range(3):
                    check(p.submit(keep, A()).result(), n + 1)
                check(p.submit(all_the_same).result(), (1, {True}))
                check(p.submit(lambda a: (type(a.b) is B, type(a) is A), A()).result(), (True, True))
                check([p.submit(bump).result() for _ in range(3)], [1, 2, 3])
        """)

    def test_classes_made_in_the_worker_come_back(self):
        self.run_main("""
            def make():
                class Local:
                    def __init__(self, n): self.n = n
                    def twice(self): return self.n * 2
                return Local(4)
            with pool() as p:
                check(p.submit(make).result().twice(), 8)
        """)

    def test_what_classes_and_modules_hold(self):
        self.run_main("""
            import logging, re
            log, pattern = logging.getLogger("x"), re.compile("a+")
            class Slots:
                __slots__ = ("a", "__weakref__")
                def __init__(self, a): self.a = a
                def get(self): return self.a
            class Lazy:
                @functools.cached_property
                def five(self): return 5
                @functools.lru_cache
                def same(self, n): return n
                @functools.singledispatchmethod
                def kind(self, x): return "any"
                @kind.register
                def _(self, x: int): return "int"
            @functools.singledispatch
            def kind(x): return "any"
            @kind.register
            def _(x: Slots): return "slots"
            class Root:
                known = {}
                def __init_subclass__(cls, **more): Root.known[cls.__name__] = cls
            class Leaf(Root): pass
            class Error(Exception):
                def __init__(self, text, *, code): super().__init__(text); self.code = code
                def __reduce__(self): return rebuild, (self.args[0], self.code)
            def rebuild(text, code): return Error(text, code=code)
            def fail(): raise Error("e", code=3)
            def uses_log(): log.debug("x"); return pattern.match("aab").group()
            def typed(x: "Slots", y: Slots = Slots(2)) -> Slots: return Slots(x + y.a)
            def steps(n): yield from range(n)
            async def later(): return 4
            def run():
                import asyncio
                return asyncio.run(later())
            with pool() as p:
                check(p.submit(uses_log).result(), "aa")
                check(p.submit(Slots(4).get).result(), 4)
                check(p.submit(lambda: (Lazy().five, Lazy().same(3), Lazy().kind(1), Lazy().kind("")))
                      .result(), (5, 3, "int", "any"))
                check((p.submit(kind, 1).result(), p.submit(kind, Slots(1)).result()), ("any", "slots"))
                check(p.submit(lambda: (sorted(Root.known), Root.known["Leaf"] is Leaf)).result(),
                      (["Leaf"], True))
                exc = p.submit(fail).exception()
                check((type(exc) is Error, exc.args, exc.code), (True, ("e",), 3))
                check(p.submit(typed, 1).result().a, 3)
                check(p.submit(lambda: list(steps(3))).result(), [0, 1, 2])
                check(p.submit(run).result(), 4)
                back = p.submit(lambda x: x, {"k": [Slots, Leaf, Root, typed, sys, int]}).result()
                check(back, {"k": [Slots, Leaf, Root, typed, sys, int]})
        """)

    def test_a_redefined_class_is_another(self):
        self.run_main("""
            class A:
                v = 1
            def get(a): return a.v, type(a) is A
            with pool() as p:
                check(p.submit(get, A()).result(), (1, True))
                old = A
                class A:
                    v = 2
                if START == "fresh":
                    check(p.submit(get, A()).result(), (2, True))
                    check(p.submit(get, old()).result(), (1, False))
                same(type(p.submit(lambda x: x, A()).result()), A)
                same(type(p.submit(lambda x: x, old()).result()), old)
        """)


class Programs(unittest.TestCase):
    SMALL = """
        @__import__("dataclasses").dataclass
        class P:
            x: int
        def f(n): return P(n)
        with pool() as p:
            check(p.submit(f, 3).result(), P(3))
            same(type(p.submit(f, 3).result()), P)
    """

    def test_from_stdin(self):
        program(self.SMALL, stdin=True)

    def test_in_exec(self):
        program(f"exec({textwrap.dedent(self.SMALL)!r})")

    def test_in_exec_with_a_namespace_of_its_own(self):
        text = "import yoke\n" + textwrap.dedent(BEGIN).format(start="fresh")
        text += textwrap.dedent(self.SMALL)
        program(f"exec({text!r}, {{'__name__': 'cell'}})\nexec({text!r}, {{'__name__': '__main__'}})")

    def test_isolated_and_optimized(self):
        for option in ("-I", "-OO", "-B"):
            with self.subTest(option):
                if option == "-I" and not yoke.__file__.startswith(sys.prefix):
                    continue
                program(self.SMALL, options=[option])

    @unittest.skipIf("asan" in os.environ.get("LD_PRELOAD", ""), "under ASan memory grows by itself")
    def test_one_shot_functions_do_not_pile_up(self):
        program("""
            import gc, resource, tracemalloc
            from yoke import _yoke, _loading
            def worker_size():
                from yoke import _loading
                return len(_loading.came)
            def rss(): 
                with open("/proc/self/statm") as f: return int(f.read().split()[1])
            with pool() as p:
                def burst(n):
                    for i in range(n):
                        data = "x" * 1000 + str(i)
                        p.submit(lambda: len(data)).result()
                burst(1500)
                gc.collect()
                here, there, sent = rss(), p.submit(rss).result(), len(_loading.sent)
                burst(3000)
                gc.collect()
                check(len(_loading.sent) <= sent + 5, True)
                check(p.submit(worker_size).result() < 1500, True)
                grown = rss() - here, p.submit(rss).result() - there
                check(grown[0] < 500 and grown[1] < 800, True)
        """)

    def test_without_cloudpickle(self):
        program("""
            sys.modules["cloudpickle"] = None
            class A: pass
            def f(n): return n + 1
            with pool() as p:
                check(p.submit(f, 1).result(), 2)
                try:
                    p.submit(lambda x: x, A()).result()
                except Exception as exc:
                    text = "".join(__import__("traceback").format_exception(exc))
                    check("python3-cloudpickle" in text, True)
                else:
                    check(0, 1)
        """)

    def test_functions_need_no_cloudpickle(self):
        program("""
            def f(n): return n + 1, "cloudpickle" in sys.modules
            def outer(k): return lambda n: (n + k, "cloudpickle" in sys.modules)
            with pool() as p:
                check(p.submit(f, 1).result(), (2, False))
                check(p.submit(outer(2), 1).result(), (3, False))
            check("cloudpickle" in sys.modules, False)
        """)


class Here(unittest.TestCase):
    """Without workers."""

    def test_errors_pickle(self):
        exc = _errors.WorkerDied("gone", signal=11, exit_code=None, task="f", traceback="t")
        back = pickle.loads(pickle.dumps(exc))
        self.assertEqual((back.args, back.signal, back.exit_code, back.task, back.traceback),
                         (("gone",), 11, None, "f", "t"))
        self.assertIs(type(back), yoke.WorkerDied)
        for name in ("TaskTimeout", "TransferError", "PoolBroken", "PoolClosed"):
            exc = getattr(yoke, name)("text")
            exc.add_note("more")
            back = pickle.loads(pickle.dumps(exc))
            self.assertIs(type(back), type(exc))
            self.assertEqual((back.args, back.__notes__), (("text",), ["more"]))
        self.assertTrue(issubclass(yoke.TaskTimeout, TimeoutError))

    def test_by_name(self):
        import json
        import os.path
        import xml.dom.minidom

        for obj in (json.dumps, os.path.join, xml.dom.minidom.Node, dict, kit.until):
            self.assertTrue(_reading.by_name(obj), obj)
        for obj in (lambda: 0, program.__class__.__call__):
            self.assertFalse(_reading.by_name(obj), obj)

    def test_reads_finds_globals_only(self):
        space = {}
        exec(textwrap.dedent("""
            def f(a):
                class C:
                    x = in_class
                    def m(self): return in_method
                a.attribute = [in_list for _ in a]
                global stored
                stored = len(a)
                return lambda: in_lambda.attribute
        """), space)
        names, words = _reading.reads(space["f"].__code__)
        self.assertEqual(set(names) - {"__name__"},
                         {"in_class", "in_method", "in_list", "stored", "len", "in_lambda"})
        self.assertIn("attribute", words)

    def test_many_globals(self):
        count = 700
        space = {f"g{i}": i for i in range(count)}
        exec("def f(): return " + " + ".join(f"g{i}" for i in range(count)), space)
        names, _ = _reading.reads(space["f"].__code__)
        self.assertEqual(set(names), {f"g{i}" for i in range(count)})

    def test_a_definition_is_cached_and_keeps_nothing_alive(self):
        def make(k):
            def rec(n):
                return k if n == 0 else rec(n - 1)

            return rec

        function = make(3)
        first = _yoke.definition(function, None)
        self.assertIs(_yoke.definition(function, None), first)
        ref = weakref.ref(function)
        del function
        gc.collect()
        self.assertIsNone(ref())
        function = make(3)
        self.assertIsNot(_yoke.definition(function, None), first)

    def test_guards_see_a_cell_change(self):
        def make():
            k = 1

            def get():
                return k

            def put(n):
                nonlocal k
                k = n

            return get, put

        get, put = make()
        first = _yoke.definition(get, None)
        put(2)
        second = _yoke.definition(get, None)
        self.assertIsNot(first, second)
        self.assertNotEqual(first.id, second.id)

    def test_a_changing_definition_is_made_anew_only_if_its_bytes_differ(self):
        items = [1]

        def get():
            return items

        first = _yoke.definition(get, None)
        self.assertTrue(first.changes)
        self.assertIs(_yoke.definition(get, None), first)
        items.append(2)
        self.assertIsNot(_yoke.definition(get, None), first)

    def test_methods_of_the_same_object_are_one_definition(self):
        text = "a,b"
        self.assertIs(_yoke.definition(text.split, None), _yoke.definition(text.split, None))

    def test_no_definition_at_a_wrong_address(self):
        for address in (0, 8, 16, 4096, 2**63, 2**64 - 16):
            with self.assertRaises(ValueError):
                _yoke.load_definition(address)
        with self.assertRaises((OverflowError, TypeError)):
            _yoke.load_definition(-1)

    def test_pickling_goes_on_after_an_error(self):
        class Bad:
            def __reduce__(self):
                raise ZeroDivisionError

        with self.assertRaises(ZeroDivisionError):
            _pickling.dumps(Bad(), None, [])
        with self.assertRaises(ZeroDivisionError):
            _yoke.definition(Bad().__reduce__, None)
        self.assertEqual(pickle.loads(_pickling.dumps([1], None, [])), [1])


if __name__ == "__main__":
    unittest.main()
