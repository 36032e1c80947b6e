# SPDX-License-Identifier: MIT
"""What pickles of yoke._pickling call when they are loaded, mostly in workers.

A definition sets the globals of __main__ that it reads in the worker's own __main__, which all
functions of __main__ share there. Each value has a version of the program's, so a value that the
program has not changed leaves alone what tasks made of it.
"""

import _pickle
import _weakref
import marshal
import sys
from _io import BytesIO

from yoke import _yoke

_FunctionType = type(lambda: None)
_ModuleType = type(sys)
_KEPT = (type, _FunctionType, dict, list, tuple, set, frozenset, bytearray)
_CellType = type((lambda x: (lambda: x))(0).__closure__[0])
_MAINS = ("__main__", "__mp_main__")

PicklingError = _pickle.PicklingError


# --- what came from the program, and what went to workers ----------------------------------------


class _Numbers:
    """Numbers of objects, by identity, for as long as they live."""

    def __init__(self):
        self._numbers = {}  # address -> (weak reference, number)
        self._objects = {}  # number -> weak reference
        self._last = 0

    def of(self, obj, make=False):
        found = self._numbers.get(id(obj))
        if found is not None and found[0]() is obj:
            return found[1]
        if not make:
            return 0
        self._last += 1
        self.set(obj, self._last)
        return self._last

    def set(self, obj, number):
        address = id(obj)

        def gone(ref, numbers=self._numbers, objects=self._objects):
            found = numbers.get(address)
            if found is not None and found[0] is ref:
                del numbers[address]
            if objects.get(number) is ref:
                del objects[number]

        ref = _weakref.ref(obj, gone)
        self._numbers[address] = (ref, number)
        self._objects[number] = ref

    def object(self, number):
        ref = self._objects.get(number)
        return ref() if ref is not None else None

    def __len__(self):
        return len(self._numbers)


sent = _Numbers()  # in the program: functions and classes that went by value
came = _Numbers()  # in a worker: those that came


def parent_object(number):
    """In the program: what the worker got under this number."""
    obj = sent.object(number)
    if obj is None:
        raise PicklingError(
            "the worker sent back a function or class that this program has let go of meanwhile"
        )
    return obj


# --- start="fork" --------------------------------------------------------------------------------

_snapshots = {}  # in the program: serial -> weak reference
_serials = 0
snapshot_here = None  # in a worker: its own

ATOMS = frozenset(
    (type(None), bool, int, float, complex, str, bytes, type(Ellipsis), type(NotImplemented), range)
)


class Snapshot:
    """What was in __main__ and in the frames on the stack when workers were forked.

    Functions and classes that were there travel as numbers. So does what a function reads, be it
    from __main__ or from its closure: the worker has that as it was then. Arguments of calls are
    what they are when the call is handed in, so lists, dicts and arrays among them are sent.

    It keeps functions, classes and plain containers alive as long as the pool; of all else it knows
    only as long as somebody else keeps it (see loosen).
    """

    __slots__ = ("__weakref__", "definitions", "main", "numbers", "objects", "serial")

    def __init__(self, frame=None):
        global _serials
        _serials += 1
        self.serial = _serials
        self.numbers = {}
        self.objects = []
        self.definitions = {}
        main = sys.modules.get("__main__")
        self.main = dict(main.__dict__) if main is not None else {}
        for value in self.main.values():
            self._add(value)
        frame = frame if frame is not None else sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_flags & 2:  # CO_NEWLOCALS: a function's
                found = frame.f_locals
                for value in list(found.values()):
                    self._add(value)
                if type(found) is dict:
                    found.clear()  # a copy that the frame keeps; it would keep the values, too
            frame = frame.f_back
        _snapshots[self.serial] = _weakref.ref(self, lambda _, n=self.serial: _snapshots.pop(n, 0))

    def _add(self, value):
        if type(value) in ATOMS or isinstance(value, _ModuleType) or id(value) in self.numbers:
            return
        self.numbers[id(value)] = len(self.objects)
        self.objects.append(value)
        if isinstance(value, type) and value.__module__ in _MAINS:
            for inner in list(value.__dict__.values()):
                if isinstance(inner, type):
                    self._add(inner)

    def find(self, obj):
        return self.numbers.get(id(obj))

    def get(self, number):
        obj = self.objects[number]
        return obj() if type(obj) is _Loose else obj

    def loosen(self):
        """In the program, once there are workers: they have copies of all, kept alive."""
        for number, obj in enumerate(self.objects):
            if obj is None or isinstance(obj, _KEPT):
                continue
            try:
                self.objects[number] = _Loose(obj, self.numbers, number)
            except TypeError:  # it cannot be known when that goes, and its place is used again
                self.numbers.pop(id(obj), None)
                self.objects[number] = None


class _Loose(_weakref.ref):
    """Of an object with a number; when that goes, so does the number."""

    __slots__ = ("address",)

    def __new__(cls, obj, numbers, number):
        return super().__new__(cls, obj, lambda self: numbers.pop(self.address, None))

    def __init__(self, obj, numbers, number):
        super().__init__(obj)
        self.address = id(obj)


def become(snapshot):
    """In a worker made by start="fork": this is what it is a copy of."""
    global snapshot_here
    snapshot_here = snapshot


def snapshot_object(number):
    return snapshot_here.get(number)


def parent_snapshot_object(serial, number):
    ref = _snapshots.get(serial)
    snapshot = ref() if ref is not None else None
    if snapshot is None:
        raise PicklingError("the worker sent back what this program has let go of meanwhile")
    return snapshot.get(number)


class _SnapshotUnpickler(_pickle.Unpickler):
    def persistent_load(self, number):
        return snapshot_here.get(number)


def load_of_snapshot(data):
    return _SnapshotUnpickler(BytesIO(data)).load()


# --- making functions, in the worker -------------------------------------------------------------

_worker_versions = {}  # name in the worker's __main__ -> version that a definition set
_names = None  # what the definition that is being loaded sets: [name, version, value, ...]


def main_globals():
    return sys.modules["__main__"].__dict__


def new_globals(base):
    import builtins

    return {"__builtins__": builtins, **base}


def make_cell():
    return _CellType()


def make_function(number, code, space, closure):
    function = _FunctionType(marshal.loads(code), space, None, None, closure)
    if number:
        came.set(function, number)
    return function


def set_function(function, state):
    names, space, cells, defaults, more = state
    if names is not None:
        for at in range(0, len(names), 3):
            _set_name(names[at], names[at + 1], names[at + 2])
    if space is not None:
        function.__globals__.update(space)
    for at in range(0, len(cells), 2):
        cells[at].cell_contents = cells[at + 1]
    function.__defaults__ = defaults
    if more is not None:
        attributes, own = more
        for name, value in attributes.items():
            setattr(function, name, value)
        function.__dict__.update(own)


def _set_name(name, version, value):
    main = main_globals()
    if _worker_versions.get(name) != version:
        main[name] = value
        _worker_versions[name] = version
        _yoke.main_changed()
    elif name in main:
        value = main[name]
    if _names is not None:
        _names.extend((name, version, value))


def again(names):
    """Another definition changed __main__ since this one set it: as this one wants it."""
    main = main_globals()
    for at in range(0, len(names), 3):
        if _worker_versions.get(names[at]) != names[at + 1]:
            main[names[at]] = names[at + 2]
            _worker_versions[names[at]] = names[at + 1]
            _yoke.main_changed()


def load(data):
    """In a worker: (what a definition stands for, what it sets in __main__ or None)."""
    global _names
    outer, _names = _names, []
    try:
        return _pickle.loads(data), _names or None
    finally:
        _names = outer


def make_named(number, maker, args):
    obj = maker(*args)
    if number:
        came.set(obj, number)
    return obj


def make_cached(function, maxsize, typed):
    import functools

    return functools.lru_cache(maxsize, typed)(function)


def make_cached_property(function, name):
    import functools

    made = functools.cached_property(function)
    if name is not None:
        made.__set_name__(None, name)
    return made


def make_dispatcher(base):
    import functools

    return functools.singledispatch(base)


def set_dispatcher(function, table):
    for cls, handler in table.items():
        function.register(cls, handler)


def load_module(name):
    __import__(name)
    return sys.modules[name]


def attribute(module, name):
    return getattr(load_module(module), name)
