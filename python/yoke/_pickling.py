# SPDX-License-Identifier: MIT
"""What travels by value, and as what.

Whatever an import finds in a clean interpreter travels by its name. Functions of __main__, lambdas
and closures travel as their code and what they read; classes of __main__ with cloudpickle. A
function's globals of __main__ are set in the worker's own __main__, which all such functions share
there: so what an initializer sets with `global`, tasks read. Each value has a version, so that it is
set again only when the program's has changed.

What the program sent comes back as itself: the worker knows its number (parent_object).
"""

import _pickle
import _thread
import _weakref
import marshal
import sys
from _functools import _lru_cache_wrapper
from _io import BytesIO

from yoke import _yoke

_FunctionType = type(lambda: None)
_ModuleType = type(sys)
_BuiltinType = type(len)
_CellType = type((lambda x: (lambda: x))(0).__closure__[0])
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE
_MAINS = ("__main__", "__mp_main__")

PicklingError = _pickle.PicklingError


# --- by name? ------------------------------------------------------------------------------------

_findable = {}  # name of a module -> (module, whether a clean interpreter finds it)


def importable(name):
    """A clean interpreter that has our sys.path finds this module, and it is the same."""
    module = sys.modules.get(name)
    known = _findable.get(name)
    if known is not None and known[0] is module:
        return known[1]
    found = module is not None and name not in _MAINS and _finds(name, module)
    _findable[name] = (module, found)
    return found


def _finds(name, module):
    spec = getattr(module, "__spec__", None)
    if spec is None:
        return False
    origin = getattr(spec, "origin", None)
    if origin in ("built-in", "frozen"):
        return True
    from _frozen_importlib_external import PathFinder

    parent, _, _ = name.rpartition(".")
    path = None
    if parent:
        if not importable(parent):
            return False
        path = getattr(sys.modules[parent], "__path__", None)
        if path is None:
            return True  # such as os.path: whoever imports the parent has it
    try:
        found = PathFinder.find_spec(name, path)
    except Exception:
        return False
    if found is None:
        return bool(parent)  # the parent makes it
    return found.origin == origin


def _resolves(obj, module, qualname):
    """It is what stands under that name."""
    if module is None or qualname is None or "<" in qualname:
        return False
    found = sys.modules.get(module)
    try:
        for part in qualname.split("."):
            found = getattr(found, part)
    except AttributeError:
        return False
    return found is obj


def by_name(obj):
    """A function or class that workers find by its name."""
    module = getattr(obj, "__module__", None)
    return (
        isinstance(module, str)
        and module not in _MAINS
        and _resolves(obj, module, getattr(obj, "__qualname__", None))
        and importable(module)
    )


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


_sent = _Numbers()  # in the program: functions and classes that went by value
_came = _Numbers()  # in a worker: those that came
_MethodType = type(_came.of)


def parent_object(number):
    """In the program: what the worker got under this number."""
    obj = _sent.object(number)
    if obj is None:
        raise PicklingError(
            "the worker sent back a function or class that this program has let go of meanwhile"
        )
    return obj


# --- start="fork" --------------------------------------------------------------------------------

_snapshots = {}  # in the program: serial -> weak reference
_serials = 0
_snapshot = None  # in a worker: its own

_ATOMS = frozenset(
    (type(None), bool, int, float, complex, str, bytes, type(Ellipsis), type(NotImplemented), range)
)


class Snapshot:
    """What was in __main__ and in the frames on the stack when workers were forked.

    Functions and classes that were there travel as numbers. So does what a function reads, be it
    from __main__ or from its closure: the worker has that as it was then. Arguments of calls are
    what they are when the call is handed in, so lists, dicts and arrays among them are sent.
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
                for value in list(frame.f_locals.values()):
                    self._add(value)
            frame = frame.f_back
        _snapshots[self.serial] = _weakref.ref(self, lambda _, n=self.serial: _snapshots.pop(n, 0))

    def _add(self, value):
        if type(value) in _ATOMS or isinstance(value, _ModuleType) or id(value) in self.numbers:
            return
        self.numbers[id(value)] = len(self.objects)
        self.objects.append(value)
        if isinstance(value, type) and value.__module__ in _MAINS:
            for inner in list(value.__dict__.values()):
                if isinstance(inner, type):
                    self._add(inner)

    def find(self, obj):
        return self.numbers.get(id(obj))


def become(snapshot):
    """In a worker made by start="fork": this is what it is a copy of."""
    global _snapshot
    _snapshot = snapshot


def snapshot_object(number):
    return _snapshot.objects[number]


def parent_snapshot_object(serial, number):
    ref = _snapshots.get(serial)
    snapshot = ref() if ref is not None else None
    if snapshot is None:
        raise PicklingError("the worker sent back what this program has let go of meanwhile")
    return snapshot.objects[number]


class _SnapshotUnpickler(_pickle.Unpickler):
    def persistent_load(self, number):
        return _snapshot.objects[number]


def load_of_snapshot(data):
    return _SnapshotUnpickler(BytesIO(data)).load()


# --- what a function reads -----------------------------------------------------------------------

_reads_cache = {}  # address of a code object -> (weak reference, names of globals, all names)
_ops = None


def _global_ops():
    global _ops
    if _ops is None:
        from opcode import opmap

        _ops = {
            opmap[name]: name == "LOAD_GLOBAL"
            for name in ("LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL")
        }
        in_class = {
            opmap[name]: name == "never"
            for name in ("LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
            if name in opmap
        }
        _ops = (_ops, {**_ops, **in_class}, opmap["EXTENDED_ARG"])
    return _ops


def _walk(code, names, words):
    in_function, in_class, extended = _global_ops()
    ops = in_function if code.co_flags & 1 else in_class  # CO_OPTIMIZED
    ops_bytes = code.co_code
    own = code.co_names
    words.update(own)
    if own:
        high = 0
        for at in range(0, len(ops_bytes), 2):
            op = ops_bytes[at]
            if op == extended:
                high = (high | ops_bytes[at + 1]) << 8
                continue
            shifted = ops.get(op)
            if shifted is not None:
                # The lowest bit of LOAD_GLOBAL says something else.
                index = (high | ops_bytes[at + 1]) >> shifted
                names[own[index]] = None
            high = 0
    for const in code.co_consts:
        if type(const) is type(code):
            _walk(const, names, words)


def reads(code):
    """The names of the globals that a code object uses, and all other names in it."""
    found = _reads_cache.get(id(code))
    if found is not None and found[0]() is code:
        return found[1], found[2]
    names, words = {}, set()
    _walk(code, names, words)
    address = id(code)
    ref = _weakref.ref(code, lambda _: _reads_cache.pop(address, None))
    _reads_cache[address] = (ref, tuple(names), words)
    return tuple(names), words


def _submodules(module, words):
    """Modules below this one that the code reaches through it."""
    if not hasattr(module, "__path__"):
        return ()
    prefix = module.__name__ + "."
    return [
        name
        for name in list(sys.modules)
        if name.startswith(prefix)
        and words.issuperset(name[len(prefix):].split("."))
        and isinstance(sys.modules[name], _ModuleType)
        and importable(name)
    ]


# How surely a value will still be the same as long as it is the same object.
_SAME, _REFERENT, _MISSING, _CODE, _CHANGES = 0, 1, 2, 3, 4
_STEADY = {
    ("re", "Pattern"), ("logging", "Logger"), ("logging", "RootLogger"), ("uuid", "UUID"),
    ("datetime", "datetime"), ("datetime", "date"), ("datetime", "time"), ("datetime", "timedelta"),
    ("datetime", "timezone"), ("decimal", "Decimal"), ("fractions", "Fraction"),
    ("pathlib", "PosixPath"), ("pathlib", "PurePosixPath"), ("operator", "itemgetter"),
    ("operator", "attrgetter"),
}  # fmt: skip


def steadiness(value):
    kind = type(value)
    if kind in _ATOMS:
        return _SAME
    if kind is tuple or kind is frozenset:
        return _SAME if all(steadiness(item) == _SAME for item in value) else _CHANGES
    if kind is _FunctionType or issubclass(kind, type) or kind is _lru_cache_wrapper:
        return _REFERENT
    if isinstance(value, _ModuleType):
        return _SAME if importable(value.__name__) else _CHANGES
    if kind is _BuiltinType:
        owner = getattr(value, "__self__", None)
        return _SAME if owner is None or isinstance(owner, _ModuleType) else _CHANGES
    if (kind.__module__, kind.__name__) in _STEADY:
        return _SAME
    enum = sys.modules.get("enum")
    if enum is not None and isinstance(value, enum.Enum):
        return _SAME
    return _CHANGES


# --- versions of the globals of __main__ ---------------------------------------------------------

_versions = {}  # in the program: name -> (mark, version)
_version_count = 0
_weighing = set()  # names whose values are being pickled to compare them


def _mark(name, value, steady, snapshot):
    """What tells whether the value is the one of last time."""
    if steady == _REFERENT:
        return _weakref.ref(value)
    if steady == _SAME:
        if type(value) in (str, bytes) and len(value) > 1024:
            return (type(value), len(value), hash(value))  # not kept alive
        return (_SAME, id(value), value)
    if name in _weighing:
        return None
    _weighing.add(name)
    try:
        data, _ = _pickle_definition(_Weighing, value, snapshot)
        return (len(data), hash(data))
    finally:
        _weighing.discard(name)


def _is_same_mark(old, new):
    if type(old) is not type(new):
        return False
    if type(new) is _weakref.ref:
        return old is new or (new() is not None and old() is new())
    if new is not None and old[0] is _SAME and new[0] is _SAME:
        return old[2] is new[2]
    return old == new


def _version(name, value, steady, snapshot):
    global _version_count
    mark = _mark(name, value, steady, snapshot)
    old = _versions.get(name)
    if old is not None and (mark is None or _is_same_mark(old[0], mark)):
        return old[1]
    _version_count += 1
    _versions[name] = (mark, _version_count)
    return _version_count


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
        _came.set(function, number)
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
        _names += (name, version, value)


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
        _came.set(obj, number)
    return obj


def make_cached(function, maxsize, typed):
    import functools

    return functools.lru_cache(maxsize, typed)(function)


def load_module(name):
    __import__(name)
    return sys.modules[name]


def attribute(module, name):
    return getattr(load_module(module), name)


# --- pickling ------------------------------------------------------------------------------------


class NeedsCloudpickle(Exception):
    """There is something in it that only cloudpickle can do."""


class _Space:
    """Stands for a dict of globals in a pickle."""

    __slots__ = ("globals", "main")

    def __init__(self, space, main):
        self.globals = space
        self.main = main


class _Reducer:
    """What all our picklers do; a mixin for Pickler and CloudPickler."""

    in_main = True  # globals of __main__ are those of the worker's __main__

    def __init__(self, file, buffer_callback=None, uses=None, snapshot=None):
        super().__init__(file, 5, buffer_callback=buffer_callback)
        self.uses = uses
        self.snapshot = snapshot
        self.spaces = {}
        self.cells = {}
        self.codes = {}

    def reducer_override(self, obj):
        kind = type(obj)
        if kind is _FunctionType:
            return self.function(obj)
        if issubclass(kind, type):
            return self.type(obj)
        if kind is _CellType:
            return make_cell, ()
        if kind is _Space:
            return self.space(obj)
        if kind is _lru_cache_wrapper:
            return self.cached(obj)
        if isinstance(obj, _ModuleType):
            return self.module(obj)
        if kind.__module__ == "dataclasses":
            return self.constant(obj)
        return self.other(obj)

    def other(self, obj):
        return NotImplemented

    def constant(self, obj):
        # Dataclasses compare some of theirs by identity.
        for name, value in vars(sys.modules["dataclasses"]).items():
            if value is obj:
                return attribute, ("dataclasses", name)
        return self.other(obj)

    def module(self, obj):
        if importable(obj.__name__):
            return load_module, (obj.__name__,)
        return self.by_cloudpickle(obj)

    def cached(self, obj):
        if by_name(obj):
            return NotImplemented
        parameters = obj.cache_parameters()
        return make_cached, (obj.__wrapped__, parameters["maxsize"], parameters["typed"])

    def by_cloudpickle(self, obj):
        raise NeedsCloudpickle(obj)

    def number_of(self, obj):
        return _sent.of(obj, True)

    # functions by value

    def space(self, obj):
        if obj.main:
            return main_globals, ()
        space = obj.globals
        keys = ("__name__", "__package__", "__file__", "__path__")
        return new_globals, ({key: space[key] for key in keys if key in space},)

    def space_of(self, space):
        found = self.spaces.get(id(space))
        if found is None:
            main = sys.modules.get("__main__")
            is_main = self.in_main and main is not None and space is main.__dict__
            found = self.spaces[id(space)] = _Space(space, is_main)
        return found

    def by_value(self, function):
        """A function as its code and what it reads."""
        code = function.__code__
        packed = self.codes.get(id(code))
        if packed is None:
            packed = self.codes[id(code)] = marshal.dumps(code)
        space = self.space_of(function.__globals__)
        closure = function.__closure__
        made = (self.number_of(function), packed, space, closure)
        return make_function, made, self.state_of(function, space), None, None, set_function

    def state_of(self, function, space):
        names, words = reads(function.__code__)
        values, modules = {}, []
        for name in names:
            if name in space.globals:
                value = values[name] = space.globals[name]
                if isinstance(value, _ModuleType):
                    modules += map(self.module_by_name, _submodules(value, words))
                self.watch(function, name, value)
            else:
                self.watch_missing(function, name)
        cells = []
        for index, cell in enumerate(function.__closure__ or ()):
            try:
                value = cell.cell_contents
            except ValueError:
                continue
            if isinstance(value, _ModuleType):
                modules += map(self.module_by_name, _submodules(value, words))
            self.watch(function, index, value)
            if id(cell) not in self.cells:
                self.cells[id(cell)] = cell
                cells += (cell, value)
        for value in function.__defaults__ or ():
            self.watch_value(value)
        named = self.versions(values) if space.main else None
        more = self.more_of(function)
        if modules:
            more = (more[0] if more else {}, {**(more[1] if more else {}), "__yoke_uses__": modules})
        return (named, None if space.main else values, cells, function.__defaults__, more)

    def module_by_name(self, name):
        return sys.modules[name]

    def versions(self, values):
        named = []
        for name, value in values.items():
            if self.snapshot is not None and self.snapshot.main.get(name, self) is value:
                continue  # the worker has it, or has set it anew itself
            named += (name, _version(name, value, steadiness(value), self.snapshot), value)
        return named

    def more_of(self, function):
        """Attributes that differ from what a new function has."""
        attributes = {}
        code = function.__code__
        if function.__name__ != code.co_name:
            attributes["__name__"] = function.__name__
        if function.__qualname__ != code.co_qualname:
            attributes["__qualname__"] = function.__qualname__
        if function.__module__ != function.__globals__.get("__name__"):
            attributes["__module__"] = function.__module__
        consts = code.co_consts
        if function.__doc__ is not None or (consts and isinstance(consts[0], str)):
            attributes["__doc__"] = function.__doc__
        if function.__kwdefaults__:
            attributes["__kwdefaults__"] = function.__kwdefaults__
            for value in function.__kwdefaults__.values():
                self.watch_value(value)
        try:
            annotations = function.__annotations__
        except Exception:  # 3.14 evaluates them only now
            annotations = None
        if annotations:
            attributes["__annotations__"] = annotations
        parameters = getattr(function, "__type_params__", None)
        if parameters:
            attributes["__type_params__"] = parameters
        own = function.__dict__
        for value in own.values():
            self.watch_value(value)
        return (attributes, own) if attributes or own else None

    def watch(self, function, key, value):
        pass

    def watch_missing(self, function, key):
        pass

    def watch_value(self, value):
        pass


class _CallReducer(_Reducer):
    """Arguments of a call: functions and classes that go by value are definitions."""

    def function(self, obj):
        if self.snapshot is not None:
            number = self.snapshot.find(obj)
            if number is not None:
                return snapshot_object, (number,)
        if by_name(obj):
            return NotImplemented
        if obj.__closure__ is not None:
            return self.by_value(obj)  # most likely this one is used once
        return self.definition(obj)

    def type(self, obj):
        if not obj.__flags__ & _HEAP_TYPE:
            return NotImplemented
        if self.snapshot is not None:
            number = self.snapshot.find(obj)
            if number is not None:
                return snapshot_object, (number,)
        if by_name(obj):
            return NotImplemented
        return self.definition(obj)

    def definition(self, obj):
        made = _yoke.definition(obj, self.snapshot)
        self.uses.append(made)
        return _yoke.load_definition, (made.place,)


class _CallPickler(_CallReducer, _pickle.Pickler):
    pass


class _ResultReducer(_Reducer):
    """Results: what came from the program goes back as its number."""

    in_main = False

    def origin(self, obj):
        number = _came.of(obj)
        if number:
            return parent_object, (number,)
        if _snapshot is not None:
            number = _snapshot.find(obj)
            if number is not None:
                return parent_snapshot_object, (_snapshot.serial, number)
        return None

    def function(self, obj):
        found = self.origin(obj)
        if found is not None:
            return found
        return NotImplemented if by_name(obj) else self.by_value(obj)

    def type(self, obj):
        if not obj.__flags__ & _HEAP_TYPE:
            return NotImplemented
        found = self.origin(obj)
        if found is not None:
            return found
        return NotImplemented if by_name(obj) else self.by_cloudpickle(obj)

    def number_of(self, obj):
        return 0


class _ResultPickler(_ResultReducer, _pickle.Pickler):
    pass


class _DefinitionReducer(_Reducer):
    """A function or class itself, with all that it reads; watches what may change."""

    def __init__(self, file, root, snapshot, doing):
        super().__init__(file, None, [], snapshot)
        self.root = root
        self.doing = doing  # addresses of what is being defined further out
        self.guards = []
        self.changes = False
        if snapshot is not None:
            self.persistent_id = snapshot.find

    def function(self, obj):
        if obj is not self.root and by_name(obj):
            return NotImplemented
        self.guards.append((_weakref.ref(obj), _CODE, None, obj.__code__))
        return self.by_value(obj)

    def type(self, obj):
        if not obj.__flags__ & _HEAP_TYPE:
            return NotImplemented
        if obj is not self.root:
            if by_name(obj):
                return NotImplemented
            if id(obj) not in self.doing:
                return self.definition(obj)
        return self.by_cloudpickle(obj)

    def definition(self, obj):
        made = _yoke.definition(obj, self.snapshot)
        self.uses.append(made)
        self.changes = self.changes or made.changes
        self.guards.extend(made.guards or ())
        return _yoke.load_definition, (made.place,)

    def watch(self, function, key, value):
        steady = steadiness(value)
        if steady == _CHANGES:
            if self.snapshot is None or self.snapshot.find(value) is None:
                self.changes = True
                return
            steady = _SAME
        if steady == _REFERENT:
            value = _weakref.ref(value)
        self.guards.append((_weakref.ref(function), steady, key, value))

    def watch_missing(self, function, key):
        self.guards.append((_weakref.ref(function), _MISSING, key, None))

    def watch_value(self, value):
        if steadiness(value) == _CHANGES:
            self.changes = True


class _DefinitionPickler(_DefinitionReducer, _pickle.Pickler):
    pass


class _Weighing(_DefinitionReducer, _pickle.Pickler):
    """Only to see whether a value has changed."""


# --- with cloudpickle ----------------------------------------------------------------------------

_cloud_classes = {}


def _cloudpickle(obj):
    try:
        import cloudpickle
    except ImportError:
        what = getattr(obj, "__qualname__", None) or repr(type(obj).__qualname__)
        raise PicklingError(
            f"{getattr(obj, '__module__', '?')}.{what} is not in a module that workers can import, "
            "so it must be sent itself, and that needs cloudpickle, which is not installed. Install "
            "it (on Debian the package python3-cloudpickle), or move it into a module"
        ) from None
    return cloudpickle


def _cloud(reducer, obj):
    """The reducer over CloudPickler."""
    made = _cloud_classes.get(reducer)
    if made is not None:
        return made
    cloudpickle = _cloudpickle(obj)
    try:
        from cloudpickle.cloudpickle_fast import _dynamic_class_reduce
    except ImportError:
        from cloudpickle.cloudpickle import _dynamic_class_reduce

    class Cloud(reducer, cloudpickle.CloudPickler):
        def by_cloudpickle(self, obj):
            if not isinstance(obj, type):
                return self.other(obj)
            maker, args, *rest = _dynamic_class_reduce(obj)
            return (make_named, (self.number_of(obj), maker, args), *rest)

        def other(self, obj):
            return cloudpickle.CloudPickler.reducer_override(self, obj)

    _cloud_classes[reducer] = Cloud
    return Cloud


def _dumped(pickler, file, obj):
    pickler.dump(obj)
    return file.getvalue()


# --- what the C part calls -----------------------------------------------------------------------


def dumps(obj, buffer_callback=None, uses=None, snapshot=None):
    """A pickle of obj, protocol 5.

    uses: a list for a call, to which the definitions that the pickle names are appended: they must
    live as long as the pickle is read. None: a result.
    """
    file = BytesIO()
    if uses is not None:
        return _dumped(_CallPickler(file, buffer_callback, uses, snapshot), file, obj)
    try:
        return _dumped(_ResultPickler(file, buffer_callback), file, obj)
    except NeedsCloudpickle as exc:
        pickler = _cloud(_ResultReducer, exc.args[0])
    # Its large buffers are out already, so all in one now.
    file = BytesIO()
    return _dumped(pickler(file), file, obj)


_doing = {}  # thread -> addresses of what it defines


def _pickle_definition(pickler, obj, snapshot):
    doing = _doing.get(_thread.get_ident(), ())
    file = BytesIO()
    made = pickler(file, obj, snapshot, doing)
    try:
        data = _dumped(made, file, obj)
    except (NeedsCloudpickle, TypeError, AttributeError, PicklingError) as exc:
        what = exc.args[0] if isinstance(exc, NeedsCloudpickle) else obj
        try:
            pickler = _cloud(_DefinitionReducer, what)
        except PicklingError:
            if isinstance(exc, NeedsCloudpickle):
                raise
            raise exc from None
        file = BytesIO()
        made = pickler(file, obj, snapshot, doing)
        data = _dumped(made, file, obj)
    if snapshot is not None:
        data = _pickle.dumps(_Reduced(load_of_snapshot, (data,)), 5)
    return data, made


class _Reduced:
    """Pickles as this call."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


def _name_of(obj):
    name = getattr(obj, "__qualname__", None)
    if isinstance(name, str):
        module = getattr(obj, "__module__", None)
        return f"{module}.{name}" if isinstance(module, str) else name
    inner = getattr(obj, "func", None)  # functools.partial
    if inner is not None and inner is not obj and hasattr(inner, "__qualname__"):
        return f"{type(obj).__qualname__} of {_name_of(inner)}"
    return f"{type(obj).__module__}.{type(obj).__qualname__} object"


def _anchor(obj):
    """obj, if something can be noted for as long as it lives."""
    if type(obj) is _MethodType:
        return None  # each obj.method is a new object
    try:
        _weakref.ref(obj)
    except TypeError:
        return None
    return obj


def define(obj, snapshot=None):
    """A callable as (pickle, name, uses, guards or None, changes, what to note it with or None)."""
    name = _name_of(obj)
    number = snapshot.find(obj) if snapshot is not None else None
    if number is not None:
        data = _pickle.dumps(_Reduced(snapshot_object, (number,)), 5)
        return data, name, None, None, False, _anchor(obj)
    kind = type(obj)
    whole = kind is _FunctionType or (issubclass(kind, type) and obj.__flags__ & _HEAP_TYPE)
    if whole and by_name(obj):
        return _pickle.dumps(obj, 5), name, None, None, False, obj
    if not whole:
        uses = []
        data = dumps(obj, None, uses, snapshot)
        steady = kind is _BuiltinType and steadiness(obj) == _SAME
        return data, name, uses, None, not steady, _anchor(obj)
    thread = _thread.get_ident()
    before = _doing.get(thread, ())
    _doing[thread] = (*before, id(obj))
    try:
        data, made = _pickle_definition(_DefinitionPickler, obj, snapshot)
    finally:
        if before:
            _doing[thread] = before
        else:
            del _doing[thread]
    return data, name, made.uses, tuple(made.guards), made.changes, obj
