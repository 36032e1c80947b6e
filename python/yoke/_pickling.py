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
from _functools import _lru_cache_wrapper as _CachedType
from _io import BytesIO

from yoke import _loading, _yoke
from yoke._loading import (
    Snapshot as Snapshot,
    attribute,
    become as become,
    came,
    load_module,
    load_of_snapshot,
    main_globals,
    make_cached,
    make_cached_property,
    make_cell,
    make_dispatcher,
    make_function,
    make_named,
    new_globals,
    parent_object,
    parent_snapshot_object,
    sent,
    set_dispatcher,
    set_function,
    snapshot_object,
)
from yoke._reading import (
    CHANGES,
    CODE,
    MISSING,
    REFERENT,
    SAME,
    by_name,
    importable,
    reads,
    resolves,
    steadiness,
    submodules,
)

_FunctionType = type(lambda: None)
_ModuleType = type(sys)
_BuiltinType = type(len)
_CellType = type((lambda x: (lambda: x))(0).__closure__[0])
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE
_MethodType = type(sent.of)

PicklingError = _pickle.PicklingError


# --- versions of the globals of __main__ ---------------------------------------------------------

_versions = {}  # in the program: name -> (mark, version)
_version_count = 0
_weighing = set()  # (thread, name) whose value is being pickled to compare it


def _mark(name, value, steady, snapshot):
    """What tells whether the value is the one of last time."""
    if steady == REFERENT:
        return _weakref.ref(value)
    if steady == SAME:
        if type(value) in (str, bytes) and len(value) > 1024:
            return (type(value), len(value), hash(value))  # not kept alive
        return (SAME, id(value), value)
    weighed = (_thread.get_ident(), name)
    if weighed in _weighing:
        return None
    _weighing.add(weighed)
    try:
        data, _ = _pickle_definition(_Weighing, value, snapshot)
        return (len(data), hash(data))
    finally:
        _weighing.discard(weighed)


def _is_same_mark(old, new):
    if type(old) is not type(new):
        return False
    if type(new) is _weakref.ref:
        return old is new or (new() is not None and old() is new())
    if new is not None and old[0] is SAME and new[0] is SAME:
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


# --- pickling ------------------------------------------------------------------------------------


class NeedsCloudpickle(Exception):
    """There is something in it that only cloudpickle can do."""


def _dispatch_code():
    """That of what functools.singledispatch makes; nobody makes any without functools."""
    global _dispatch
    if _dispatch is None:
        functools = sys.modules.get("functools")
        if functools is not None:
            _dispatch = functools.singledispatch(_dispatch_code).__code__
    return _dispatch


_dispatch = None


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
        if kind is _CachedType:
            return self.cached(obj)
        if isinstance(obj, _ModuleType):
            return self.module(obj)
        if kind.__module__ == "dataclasses":
            return self.constant(obj)
        if kind.__module__ == "functools" and kind.__qualname__ == "cached_property":
            return make_cached_property, (obj.func, obj.attrname)  # it may have a lock
        if kind.__module__ in ("multiprocessing.connection", "socket"):
            # Descriptors: multiprocessing knows how they travel. It may have it registered.
            reduction = sys.modules.get("multiprocessing.reduction")
            reduce = reduction and reduction.ForkingPickler._extra_reducers.get(kind)
            if reduce:
                return reduce(obj)
        if kind.__module__ == "multiprocessing.synchronize" and self.snapshot is None:
            _check_named(obj)
        return self.other(obj)

    def other(self, obj):
        return NotImplemented

    def constant(self, obj):
        # Dataclasses compare some of theirs by identity.
        for name, value in vars(sys.modules["dataclasses"]).items():
            if value is obj:
                return attribute, ("dataclasses", name)
        return self.other(obj)

    def static_type(self, obj):
        if not resolves(obj, obj.__module__, obj.__qualname__):
            import types

            for name, value in vars(types).items():
                if value is obj:
                    return attribute, ("types", name)
        return NotImplemented

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
        return sent.of(obj, True)

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
        if code is _dispatch_code():
            return self.dispatcher(function)
        packed = self.codes.get(id(code))
        if packed is None:
            packed = self.codes[id(code)] = marshal.dumps(code)
        space = self.space_of(function.__globals__)
        closure = function.__closure__
        made = (self.number_of(function), packed, space, closure)
        return make_function, made, self.state_of(function, space), None, None, set_function

    def dispatcher(self, function):
        """One of functools.singledispatch, whose closure has weak references."""
        self.watch_value(function.registry)
        table = dict(function.registry)
        base = table.pop(object)
        return make_dispatcher, (base,), table, None, None, set_dispatcher

    def state_of(self, function, space):
        names, words = reads(function.__code__)
        values, modules = {}, []
        for name in names:
            if name in space.globals:
                value = values[name] = space.globals[name]
                if isinstance(value, _ModuleType):
                    modules += map(self.module_by_name, submodules(value, words))
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
                modules += map(self.module_by_name, submodules(value, words))
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
            return self.static_type(obj)
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
        number = came.of(obj)
        if number:
            return parent_object, (number,)
        here = _loading.snapshot_here
        if here is not None:
            number = here.find(obj)
            if number is not None:
                return parent_snapshot_object, (here.serial, number)
        return None

    def function(self, obj):
        found = self.origin(obj)
        if found is not None:
            return found
        return NotImplemented if by_name(obj) else self.by_value(obj)

    def type(self, obj):
        if not obj.__flags__ & _HEAP_TYPE:
            return self.static_type(obj)
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
        self.guards.append((_weakref.ref(obj), CODE, None, obj.__code__))
        return self.by_value(obj)

    def type(self, obj):
        if not obj.__flags__ & _HEAP_TYPE:
            return self.static_type(obj)
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
        if steady == CHANGES:
            library = importable(function.__globals__.get("__name__"))
            if isinstance(self.root, type) and type(key) is int and library:
                return  # what a library made for the class has in its closure: its own business
            if self.snapshot is None or self.snapshot.find(value) is None:
                self.changes = True
                return
            steady = SAME
        if steady == REFERENT:
            value = _weakref.ref(value)
        self.guards.append((_weakref.ref(function), steady, key, value))

    def watch_missing(self, function, key):
        self.guards.append((_weakref.ref(function), MISSING, key, None))

    def watch_value(self, value):
        if steadiness(value) == CHANGES:
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
            typing = sys.modules.get("typing")
            if typing is not None and typing.NamedTuple in getattr(obj, "__orig_bases__", ()):
                # It is made already: its base is a tuple.
                args = (*args[:2], obj.__bases__, *args[3:])
            if "__slots__" in obj.__dict__ and isinstance(args[3], dict):
                # Some versions set them on a class that is made, when it is too late.
                args = (*args[:3], {**args[3], "__slots__": obj.__slots__}, *args[4:])
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


def _check_named(lock):
    """A semaphore of the fork context has no name, and its address means nothing elsewhere. CPython
    says so from 3.12 on; before, who uses it crashes."""
    semaphore = getattr(lock, "_semlock", None)
    if semaphore is not None and getattr(semaphore, "name", "") is None:
        raise RuntimeError(
            "a lock or queue of multiprocessing's fork context cannot be used in fresh workers: make "
            "it by multiprocessing.get_context('spawn'), or the pool with start='fork'"
        )


def _pickler_after(failure, obj):
    """The pickler for what plain pickle failed at; raises what is to be said if there is none."""
    needed = isinstance(failure, NeedsCloudpickle)
    try:
        return _cloud(_DefinitionReducer, failure.args[0] if needed else obj)
    except PicklingError as exc:
        raise (exc if needed else failure) from None


def _pickle_definition(pickler, obj, snapshot):
    doing = _doing.get(_thread.get_ident(), ())
    file = BytesIO()
    made = pickler(file, obj, snapshot, doing)
    other = None
    try:
        data = _dumped(made, file, obj)
    except (NeedsCloudpickle, TypeError, AttributeError, PicklingError) as exc:
        other = _pickler_after(exc, obj)  # exc must not outlive this: its frames hold the arguments
    if other is not None:
        file = BytesIO()
        made = other(file, obj, snapshot, doing)
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
    if type(obj) is _MethodType or (type(obj) is _BuiltinType and steadiness(obj) != SAME):
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
        steady = kind is _BuiltinType and steadiness(obj) == SAME
        return data, name, uses, None, not steady, _anchor(obj)
    thread = _thread.get_ident()
    before = _doing.get(thread, ())
    _doing[thread] = (*before, id(obj))
    try:
        data, made = _pickle_definition(_DefinitionPickler, obj, snapshot)
    except Exception as exc:
        exc.add_note(f"This is in {name}, which must be sent itself: workers cannot import it.")
        raise
    finally:
        if before:
            _doing[thread] = before
        else:
            del _doing[thread]
    return data, name, made.uses, tuple(made.guards), made.changes, obj
