# SPDX-License-Identifier: MIT
"""python -m yoke: what threads and processes do on this machine, and which to use."""
import os
import sys

_USAGE = """\
usage: python -m yoke [demo | which] [--json]
       python -m yoke --version | --help

  demo       squares, downloads and crashes, with threads and with processes (the default)
  which      what each way to run work costs here, and which one to use
  --json     the figures and verdicts as a JSON object
"""


def _usage_error(text):
    sys.stderr.write(f"yoke: {text}\n{_USAGE}")
    return 2


def _run(command, as_json):
    """True: all went as it should."""
    from yoke._demo_text import Screen

    if command == "which":
        from yoke._demo_which import run
    else:
        from yoke._demo import run
    if not as_json:
        screen = Screen()
        try:
            return run(screen).get("as_promised", True)
        finally:
            screen.busy()
    import json

    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        result = run(Screen(nowhere))
    print(json.dumps(result, indent=2))
    sys.stdout.flush()
    return result.get("as_promised", True)


def main(arguments):
    """The exit code: 0, 1 (something failed), 2 (usage)."""
    if sys.stdout is None or sys.stderr is None:
        return 1  # there is nobody to tell
    command, as_json = None, False
    for argument in arguments:
        if argument in ("-h", "--help"):
            sys.stdout.write(_USAGE)
            return 0
        if argument in ("-V", "--version"):
            import yoke

            print("yoke", yoke.__version__)
            return 0
        if argument == "--json":
            as_json = True
        elif argument in ("demo", "which") and command is None:
            command = argument
        else:
            return _usage_error(f"unexpected argument {argument!r}")
    try:
        return 0 if _run(command, as_json) else 1
    except BrokenPipeError:  # nobody reads any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except (OSError, RuntimeError) as exc:  # no processes to be had, say
        sys.stderr.write(f"yoke: {type(exc).__name__}: {exc}\n")
        return 1


def _end_interrupted():
    """Ctrl-C: no traceback, and the shell sees the signal."""
    import signal

    try:
        sys.stdout.write("\n")
        sys.stdout.flush()
    except OSError:
        pass
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        _end_interrupted()
