# SPDX-License-Identifier: MIT
"""yoke: runs work on all cores, in processes that never hang the program.

    import yoke

    def square(x):
        return x * x

    with yoke.Pool() as pool:
        print(list(pool.map(square, range(10))))

``Pool`` is a ``concurrent.futures.Executor``. ``yoke.futures.ProcessPoolExecutor`` takes the place
of the standard library's. No ``if __name__ == "__main__"`` is needed.
"""
# Everything is imported when it is first used: `import yoke` has to cost next to nothing.

__all__ = [
    "Pool",
    "PoolBroken",
    "PoolClosed",
    "TaskTimeout",
    "TransferError",
    "WorkerDied",
    "futures",
]

_HOMES = {
    "Pool": "_pool",
    "PoolBroken": "_errors",
    "PoolClosed": "_errors",
    "TaskTimeout": "_errors",
    "TransferError": "_errors",
    "WorkerDied": "_errors",
}


def __getattr__(name):
    if name in _HOMES:
        value = getattr(__import__("yoke." + _HOMES[name], fromlist=[name]), name)
    elif name == "futures":
        value = __import__("yoke.futures", fromlist=[name])
    elif name == "__version__":
        from yoke._yoke import version as value
    else:
        raise AttributeError(f"module 'yoke' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__, "__version__"})
