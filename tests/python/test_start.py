# SPDX-License-Identifier: MIT
# asan: no
"""test_start.py - how workers come into being: the clean interpreter, copies of the program.

timeout: 240
"""
import gc
import logging
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import warnings
import weakref

import kit
import yoke

WAIT = kit.LIMIT_S
data = {"set": "in the module"}


# --- what workers run ----------------------------------------------------------------------------


def read_data():
    return data["set"]


def modules():
    return sorted(sys.modules)


def import_slowly():
    sys.slowly["go on"] = True  # in this copy of the program
    import slow_to_import

    return slow_to_import.value


def hang(path):
    open(path, "w").close()
    while True:
        time.sleep(3600)


def collector():
    return gc.isenabled(), gc.get_freeze_count() > 0


def interpreter():
    return sys.prefix, sys.exec_prefix, sys.flags.optimize, sys.path, sys.executable


def filters():
    caught = []
    warnings.showwarning = lambda message, *_: caught.append(str(message))
    for text, kind in (("quiet please", UserWarning), ("loud", UserWarning),
                       ("old", DeprecationWarning)):
        warnings.warn(text, kind, stacklevel=1)
    return caught


def is_open(fd):
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return None


def log(text):
    logging.getLogger("test_start").warning(text)


def handlers():
    return (
        signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
        signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL,
        signal.set_wakeup_fd(-1),
    )


def fail():
    raise ValueError("the initializer's own words")


def log_and_fail(path):
    import atexit

    handler = logging.FileHandler(path)
    logging.getLogger("concurrent.futures").addHandler(handler)
    atexit.register(lambda: pathlib.Path(path).open("a").write("at exit"))
    fail()


def fail_to_unpickle():
    raise ValueError("not here")


class Stubborn:
    def __reduce__(self):
        return fail_to_unpickle, ()


def leave(code):
    os._exit(code)


def exists(name):
    return hasattr(__import__("builtins"), name)


def template(program=None):
    """The process that the workers are copies of."""
    found = [
        pid
        for pid in kit.children(program)
        if pathlib.Path(f"/proc/{pid}/comm").read_text().strip() == "yoke-template"
    ]
    return found[0] if found else None


# --- both ----------------------------------------------------------------------------------------


@kit.each(**kit.BOTH)
class Both:
    def test_the_collector_of_garbage_leaves_what_is_shared_alone(self):
        with yoke.Pool(workers=1, start=self.start) as pool:
            self.assertEqual(pool.submit(collector).result(WAIT), (True, True))

    def test_an_initializer_that_raises_says_why(self):
        with self.assertRaises(yoke.PoolBroken) as caught:
            with yoke.Pool(workers=2, start=self.start, initializer=fail) as pool:
                pool.submit(abs, -1).result(WAIT)
        self.assertIn("the initializer's own words", str(caught.exception))
        self.assertIn("in fail", str(caught.exception))

    def test_an_initializer_that_raises_is_logged_where_somebody_listens(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "log")
            with self.assertRaises(yoke.PoolBroken):
                with yoke.Pool(workers=1, start=self.start, initializer=log_and_fail,
                               initargs=(path,)) as pool:
                    pool.submit(abs, -1).result(WAIT)
            text = pathlib.Path(path).read_text()
        self.assertIn("Exception in initializer:", text)
        self.assertIn("the initializer's own words", text)
        self.assertIn("at exit", text)

    def test_an_initializer_that_dies(self):
        with self.assertRaises(yoke.PoolBroken):
            with yoke.Pool(workers=2, start=self.start, initializer=leave, initargs=(3,)) as pool:
                pool.submit(abs, -1).result(WAIT)

    def test_a_new_image_is_made_when_it_is_killed(self):
        with yoke.Pool(workers=1, start=self.start) as pool:
            pool.submit(abs, -1).result(WAIT)
            image = kit.until(template)
            os.kill(image, signal.SIGKILL)
            for _ in range(3):
                self.assertIsInstance(pool.submit(leave, 1).exception(WAIT), yoke.WorkerDied)
            self.assertEqual(pool.submit(read_data).result(WAIT), "in the module")
            self.assertNotEqual(kit.until(template), image)

    def test_while_another_thread_imports_multiprocessing(self):
        program = kit.run("""
            import os, sys, threading, yoke
            begun, go, urandom = threading.Event(), threading.Event(), os.urandom

            def wait_in_the_middle(count):
                if threading.current_thread().name == "importer":
                    begun.set()
                    go.wait()
                return urandom(count)

            def load():
                import multiprocessing.process

            os.urandom = wait_in_the_middle
            importer = threading.Thread(target=load, name="importer", daemon=True)
            importer.start()
            begun.wait()
            assert "multiprocessing.process" in sys.modules
            with yoke.Pool(workers=1, start=sys.argv[1]) as pool:
                print(pool.submit(abs, -3).result())
            go.set()
            importer.join()
        """, args=(self.start,))
        self.assertEqual((program.code, program.out), (0, "3\n"), program.err)

    def test_a_new_image_while_the_maker_imports_multiprocessing(self):
        program = kit.run("""
            import os, pathlib, signal, sys, yoke
            sys.path.insert(0, sys.argv[2])
            import kit
            urandom, said = os.urandom, []

            def kill():
                gone = []
                for pid in kit.children():
                    if pathlib.Path(f"/proc/{pid}/comm").read_text().startswith("yoke-"):
                        os.kill(pid, signal.SIGKILL)
                        gone.append(pid)
                return gone

            def use_it_in_the_middle(count):
                if not said and "multiprocessing.process" in sys.modules:
                    assert not hasattr(sys.modules["multiprocessing.process"], "_current_process")
                    assert kill()
                    said.append(pool.submit(abs, -3).result())
                return urandom(count)

            with yoke.Pool(workers=1, start=sys.argv[1]) as pool:
                pool.submit(abs, -1).result()
                for name in [name for name in sys.modules if name.startswith("multiprocessing")]:
                    del sys.modules[name]
                os.urandom = use_it_in_the_middle
                import multiprocessing.process
                print(*said, pool.submit(abs, -4).result())
        """, args=(self.start, os.path.dirname(kit.__file__)))
        self.assertEqual((program.code, program.out), (0, "3 4\n"), program.err)

    def test_filters_of_warnings_are_the_programs(self):
        with warnings.catch_warnings():
            warnings.resetwarnings()
            warnings.simplefilter("always")
            warnings.filterwarnings("ignore", "QUIET.*", UserWarning)
            warnings.filterwarnings("ignore", category=DeprecationWarning, module="test_st.rt$")
            with yoke.Pool(workers=1, start=self.start) as pool:
                self.assertEqual(pool.submit(filters).result(WAIT), ["loud"])


# --- fresh ---------------------------------------------------------------------------------------


class Fresh(unittest.TestCase):
    def test_little_is_imported(self):
        """What comes in here costs each program that uses a pool."""
        program = kit.run("""
            import sys, yoke
            with yoke.Pool(workers=1) as pool:
                print(*pool.submit(eval, "sorted(__import__('sys').modules)").result())
        """)
        self.assertEqual((program.code, program.err), (0, ""))
        found = set(program.out.split())
        self.assertIn("yoke._image", found)
        for name in ("re", "typing", "traceback", "logging", "threading", "multiprocessing",
                     "concurrent", "subprocess", "signal", "socket", "cloudpickle", "pickle",
                     "weakref", "enum", "warnings", "ctypes", "inspect", "site"):
            self.assertNotIn(name, found)

    def test_it_is_an_interpreter_like_the_programs(self):
        with yoke.Pool(workers=1) as pool:
            prefix, exec_prefix, optimize, path, executable = pool.submit(interpreter).result(WAIT)
            self.assertTrue(pool.submit(exists, "exit").result(WAIT))
        self.assertEqual((prefix, exec_prefix), (sys.prefix, sys.exec_prefix))
        self.assertEqual((optimize, path), (sys.flags.optimize, sys.path))
        self.assertEqual(executable, sys.executable)

    def test_calls_of_a_start_that_is_broken_off_are_cancelled(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "file")
            pool = yoke.Pool(workers=1, initializer=hang, initargs=(path,))
            futures = [pool.submit(abs, -1) for _ in range(8)]
            watched = []
            for future in futures[::2]:  # those the collector ends, once the start has failed
                future.add_done_callback(watched.append)
            kit.until(lambda: os.path.exists(path), "the initializer runs")
            pool.shutdown(kill=True)
        self.assertTrue(all(future.cancelled() for future in futures))
        self.assertEqual(len(watched), 4)
        with self.assertRaises(yoke.PoolClosed):
            pool.submit(abs, -1)

    def test_preloads_are_there(self):
        with yoke.Pool(workers=1, preload=["decimal", "xml.dom"]) as pool:
            found = pool.submit(modules).result(WAIT)
        self.assertIn("decimal", found)
        self.assertIn("xml.dom", found)

    def test_a_preload_that_fails_says_why(self):
        with self.assertRaises(yoke.PoolBroken) as caught:
            with yoke.Pool(workers=1, preload=["json", "there_is_no_such_module"]) as pool:
                pool.submit(abs, -1).result(WAIT)
        self.assertIn("No module named 'there_is_no_such_module'", str(caught.exception))

    def test_a_preload_that_leaves_says_so(self):
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "leaving.py").write_text("raise SystemExit('enough')")
            sys.path.append(folder)
            self.addCleanup(sys.path.remove, folder)
            with self.assertRaises(yoke.PoolBroken) as caught:
                with yoke.Pool(workers=1, preload=["leaving"]) as pool:
                    pool.submit(abs, -1).result(WAIT)
        self.assertIn("SystemExit: enough", str(caught.exception))

    def test_a_preload_that_starts_threads_is_named(self):
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "threading_one.py").write_text(
                "import threading, time\n"
                "threading.Thread(target=time.sleep, args=(3600,), daemon=True, name='idler').start()"
            )
            pathlib.Path(folder, "brief.py").write_text(
                "import threading\nthreading.Thread(target=int).start()"
            )
            sys.path.append(folder)
            self.addCleanup(sys.path.remove, folder)
            with self.assertRaises(yoke.PoolBroken) as caught:
                with yoke.Pool(workers=1, preload=["json", "threading_one"]) as pool:
                    pool.submit(abs, -1).result(WAIT)
            for word in ("'threading_one'", "idler", "threads"):
                self.assertIn(word, str(caught.exception))
            with yoke.Pool(workers=1, preload=["brief"]) as pool:
                self.assertIn("brief", pool.submit(modules).result(WAIT))

    def test_linear_algebra_can_be_preloaded(self):
        try:
            import numpy
        except ImportError:
            self.skipTest("numpy is not installed")
        with yoke.Pool(workers=1, preload=["numpy.linalg"], threads_per_worker=2) as pool:
            matrix = numpy.eye(200) * 2
            self.assertEqual(pool.submit(numpy.linalg.det, numpy.eye(3)).result(WAIT), 1.0)
            product = pool.submit(numpy.dot, matrix, matrix).result(WAIT)
        self.assertEqual(product[5, 5], 4.0)

    def test_what_a_preload_prints_comes_once(self):
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "loud.py").write_text("print('loading', end=' ')")
            program = kit.run(f"""
                import sys, yoke
                sys.path.append({folder!r})
                with yoke.Pool(workers=2, preload=["loud"]) as pool:
                    list(pool.map(print, "ab", chunksize=1))
            """)
        self.assertEqual((program.code, program.err), (0, ""))
        self.assertEqual(program.out.count("loading "), 1)

    def test_descriptors_of_the_program_are_not_there(self):
        with tempfile.TemporaryFile() as file, yoke.Pool(workers=1) as pool:
            here = is_open(file.fileno())
            self.assertNotEqual(pool.submit(is_open, file.fileno()).result(WAIT), here)

    def test_an_initializer_that_cannot_be_unpickled(self):
        with self.assertRaises(yoke.PoolBroken) as caught:
            with yoke.Pool(workers=1, initializer=len, initargs=(Stubborn(),)) as pool:
                pool.submit(abs, -1).result(WAIT)
        self.assertIn("not here", str(caught.exception))

    def test_a_folder_that_is_gone(self):
        program = kit.run("""
            import os, tempfile, yoke
            folder = tempfile.mkdtemp()
            os.chdir(folder)
            os.rmdir(folder)
            with yoke.Pool(workers=1) as pool:
                print(pool.submit(abs, -1).result())
        """)
        self.assertEqual((program.code, program.out), (0, "1\n"), program.err)


# --- fork ----------------------------------------------------------------------------------------


class Local:
    def __init__(self):
        self.word = "here"


class Fork(unittest.TestCase):
    def test_memory_is_a_copy_as_of_the_start(self):
        data["set"] = "before"
        self.addCleanup(data.update, set="in the module")
        with yoke.Pool(workers=1, start="fork") as pool:
            data["set"] = "after"
            self.assertEqual(pool.submit(read_data).result(WAIT), "before")

    def test_what_was_on_the_stack_is_not_sent(self):
        numbers, lock, there = list(range(1000)), threading.Lock(), Local()
        gone = weakref.ref(there)
        with yoke.Pool(workers=1, start="fork") as pool:
            numbers.append("later")
            made_later = pool.submit(lambda: (len(numbers), lock.locked(), there.word))
            self.assertEqual(made_later.result(WAIT), (1000, False, "here"))
            del there, made_later
            kit.until(lambda: gone() is None, "that the pool lets go of it")

    def test_files_stay_open(self):
        with tempfile.NamedTemporaryFile("r") as file:
            handler = logging.FileHandler(file.name)
            logger = logging.getLogger("test_start")
            logger.addHandler(handler)
            self.addCleanup(handler.close)
            self.addCleanup(logger.removeHandler, handler)
            with yoke.Pool(workers=2, start="fork") as pool:
                list(pool.map(log, ["one"] * 10, chunksize=1))
                here = is_open(file.fileno())
                self.assertEqual(pool.submit(is_open, file.fileno()).result(WAIT), here)
            self.assertEqual(file.read(), "one\n" * 10)

    def test_handlers_of_signals_are_not_the_programs(self):
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        old = signal.signal(signal.SIGUSR1, lambda *_: None)
        signal.set_wakeup_fd(writer)
        try:
            with yoke.Pool(workers=1, start="fork") as pool:
                self.assertEqual(pool.submit(handlers).result(WAIT), (True, True, -1))
        finally:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGUSR1, old)
            os.close(reader)
            os.close(writer)

    def test_what_another_thread_was_importing_is_imported_anew(self):
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "slow_to_import.py").write_text(
                "import sys, time\n"
                "sys.slowly['begun'] = True\n"
                "while not sys.slowly['go on']:\n"
                "    time.sleep(0.001)\n"
                "value = 7\n"
            )
            sys.path.insert(0, folder)
            sys.slowly = {"begun": False, "go on": False}  # no locks, which a copy may find held
            thread = threading.Thread(target=__import__, args=("slow_to_import",))
            thread.start()
            try:
                kit.until(lambda: sys.slowly["begun"], "that the import begins")
                with yoke.Pool(workers=1, start="fork") as pool:
                    self.assertEqual(pool.submit(import_slowly).result(WAIT), 7)
            finally:
                sys.slowly["go on"] = True
                thread.join()
                sys.path.remove(folder)

    def test_a_module_that_makes_a_pool_is_not_imported_again(self):
        with tempfile.TemporaryDirectory() as folder:
            imports = pathlib.Path(folder, "imports")
            pathlib.Path(folder, "makes_a_pool.py").write_text(
                "import yoke\n"
                f"with open({str(imports)!r}, 'a') as file:\n"
                "    file.write('x')\n"
                "def five():\n"
                "    import makes_a_pool\n"
                "    return makes_a_pool.five is five and 5\n"
                "with yoke.Pool(workers=1, start='fork') as pool:\n"
                f"    value = pool.submit(five).result({WAIT})\n"
            )
            sys.path.insert(0, folder)
            try:
                self.assertEqual(__import__("makes_a_pool").value, 5)
                self.assertEqual(imports.read_text(), "x")
            finally:
                sys.path.remove(folder)

    def test_beside_busy_threads(self):
        ended = threading.Event()

        def busy():
            import collections

            while not ended.is_set():
                collections.OrderedDict((str(i), [i]) for i in range(100))
                __import__("json.decoder")
                logging.getLogger("test_start").debug("x")

        threads = [threading.Thread(target=busy) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(5):
                with yoke.Pool(workers=2, start="fork") as pool:
                    self.assertEqual(list(pool.map(abs, [-1, -2, -3])), [1, 2, 3])
        finally:
            ended.set()
            for thread in threads:
                thread.join()

    def test_fork_handlers_of_the_program_run(self):
        program = kit.run("""
            import os, yoke
            seen = []
            os.register_at_fork(before=lambda: seen.append("before"),
                                after_in_parent=lambda: seen.append("parent"),
                                after_in_child=lambda: seen.append("child"))
            with yoke.Pool(workers=2, start="fork") as pool:
                print(pool.submit(lambda: seen).result(), seen)
        """)
        self.assertEqual((program.code, program.err), (0, ""))
        self.assertEqual(program.out, "['before', 'child'] ['before', 'parent']\n")

    def test_from_a_thread(self):
        got = []

        def work():
            with yoke.Pool(workers=1, start="fork") as pool:
                got.append(pool.submit(threading_state).result(WAIT))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join(WAIT)
        self.assertEqual(got, [(True, 1, "MainThread")])

    def test_not_in_a_subinterpreter(self):
        try:
            import _xxsubinterpreters as interpreters
        except ImportError:
            try:
                import _interpreters as interpreters
            except ImportError:
                self.skipTest("this Python has no module for interpreters")
        code = f"""if True:
            import sys
            sys.path[:] = {sys.path!r}
            try:
                import yoke
                yoke.Pool(workers=1, start="fork")
            except (RuntimeError, ImportError) as exc:
                print(type(exc).__name__, exc, flush=True)
        """
        source = (
            f"import {interpreters.__name__} as interpreters\n"
            "number = interpreters.create()\n"
            f"interpreters.run_string(number, {code!r})\n"
            "interpreters.destroy(number)\n"
        )
        program = kit.run(source)
        self.assertEqual(program.code, 0, program.err)
        self.assertIn("RuntimeError", program.out)
        self.assertIn("interpreter", program.out)


def threading_state():
    return (
        threading.current_thread() is threading.main_thread(),
        threading.active_count(),
        threading.current_thread().name,
    )


if __name__ == "__main__":
    unittest.main()
