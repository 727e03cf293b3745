"""How every command begins and ends: arguments in, an exit code out, one message for whatever is refused.

What the operating system and the database refuse becomes one sentence here, and nowhere else, for each command alike.

``import gemnet`` registers the networks with timm and takes seconds. Commands therefore import it, and all that needs
it, inside their functions: ``--help`` and arguments that can't be read are answered at once.
"""

from __future__ import annotations

import errno
import functools
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

Main = Callable[[str, list[str]], int]

_MENDS = {
    errno.ENOSPC: "Make room on its disk",
    errno.EDQUOT: "Make room: the quota is used up",
    errno.EFBIG: "The file system, or a limit on file sizes, takes no more",
    errno.EACCES: "Check its permissions, or choose another place",
    errno.EPERM: "Check its permissions, or choose another place",
    errno.EROFS: "Choose a place that can be written to",
    errno.ENAMETOOLONG: "Choose a shorter name",
    errno.ENOTDIR: "A part of it is a file; choose another place",
    errno.EISDIR: "Give the name of a file",
    errno.EMFILE: "Too many files are open: raise the limit (ulimit -n)",
}


def program_name(tool: str) -> str:
    """How the user called a tool: the wheel's console command, or the file in ``tools/``."""
    name = Path(sys.argv[0]).name
    return name if name.startswith("gemnet-") else f"python tools/{tool}.py"


class Command(Protocol):
    """A command as ``tools/`` and the wheel's entry points call it."""

    def __call__(self, arguments: Sequence[str] | None = None) -> int:
        """Runs it; returns its exit code."""
        ...


def command(tool: str, go_on: str = "", resume: bool = False) -> Callable[[Main], Command]:
    """Makes a command of a function of the program's name and the arguments that returns an exit code.

    Ctrl-C, or SIGTERM, lets what workers are doing come to its end and be recorded, and a training whose state is kept
    come to the end of its epoch; the second time it ends at once.

    Args:
        tool: name of the file in ``tools/``.
        go_on: what is printed before the command line, without passwords, when it was interrupted.
        resume: whether that command line needs ``--resume``.

    Returns:
        A decorator. The command takes the arguments (None for the process's own) and returns 2, with one message on
        standard error, where something is to be mended, and 130 where it was interrupted.
    """

    def decorate(run: Main) -> Command:
        def main(arguments: Sequence[str] | None = None) -> int:
            given = list(sys.argv[1:] if arguments is None else arguments)
            program = program_name(tool)
            try:
                if any("\0" in each for each in given):
                    from gemnet.errors import GemnetError

                    raise GemnetError("An argument holds a NUL byte, which no name has.")
                with _two_interrupts():
                    return run(program, given)
            except KeyboardInterrupt:
                if go_on and "gemnet" in sys.modules:  # else nothing was begun
                    again = [*given, *(["--resume"] if resume and "--resume" not in given else [])]
                    print(f"\n{_printable(f'{go_on}: {shown_command(program, again)}')}", file=sys.stderr)
                return 130
            except BrokenPipeError:  # whoever read the output has gone: `| head`
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                return 141
            except Exception as error:  # refusals and full disks are told in one line, the rest is raised again
                text = refusal(error)
                if text is None:
                    raise
                print(f"{program}: error: {_printable(' '.join(text.splitlines()))}", file=sys.stderr)
                return 2

        functools.update_wrapper(main, run)
        return main

    return decorate


def refusal(error: BaseException) -> str | None:
    """What an error says to somebody who can mend it, in one sentence; None for a mistake of the program itself."""
    errors = sys.modules.get("gemnet.errors")  # which whoever raised one has imported
    if errors is not None and isinstance(error, errors.GemnetError):
        return str(error)
    if isinstance(error, OSError):
        name = error.filename if error.filename2 is None else error.filename2
        what = os.fsdecode(name) if isinstance(name, str | bytes) else "A file"
        reason = error.strerror or str(error) or type(error).__name__
        mend = _MENDS.get(error.errno or 0, "Check the path")
        return f"{what} can't be used: {reason}. {mend}."
    if isinstance(error, ImportError):
        return f"A module that is needed can't be imported: {error}. Install it for this Python."
    if isinstance(error, MemoryError):
        return "There is not enough memory for this. Choose smaller sizes or fewer workers."
    if isinstance(error, RecursionError):
        return "Something that was given is nested too deep to be read."
    if isinstance(error, RuntimeError) and "home directory" in str(error):
        return "A path that was given begins with '~' and the name of no user of this machine. Check it."
    if isinstance(error, UnicodeError):
        return f"A text that was given is no valid UTF-8 ({error.reason if hasattr(error, 'reason') else error})."
    if "gemnet" not in sys.modules:
        return None
    from sqlalchemy.exc import SQLAlchemyError

    if isinstance(error, SQLAlchemyError):
        from nas.evaluation.storage import reason as said

        return f"The ledger can't be used: {said(error)}. Nothing recorded is lost; go on with --resume."
    return None


def _printable(text: str) -> str:
    """`gemnet.quoting.printable`, or the like where importing gemnet failed, or was interrupted."""
    if "gemnet" not in sys.modules:
        return text if text.isprintable() else ascii(text)[1:-1]
    from gemnet.quoting import printable

    return printable(text)


def shown_command(program: str, arguments: Sequence[str]) -> str:
    """A command line as it may be printed and kept: without the passwords of its URLs."""
    shown = list(arguments)
    if any("://" in each for each in arguments):
        from nas.evaluation.storage import without_credentials

        shown = [without_credentials(each) for each in arguments]
    return f"{program} {shlex.join(shown)}".strip()


@contextmanager
def _two_interrupts() -> Iterator[None]:
    """The first Ctrl-C or SIGTERM lets evaluations and epochs under way end, the second ends at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def stop(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        # Where these were never imported, nothing is under way.
        executors, stopping = sys.modules.get("nas.executors.base"), sys.modules.get("gemnet.stopping")
        trainings = 0 if stopping is None else stopping.ask_to_stop()
        running = None if executors is None else executors.halt_executors()
        if not (trainings if running is None else running):
            raise KeyboardInterrupt
        if trainings:
            text = "\nStopping: a training ends with its epoch and can go on from there, all else is done and recorded;"
        else:
            text = f"\nStopping when what is under way ({running}) is done and recorded;"
        text += " once more stops at once.\n"
        os.write(2, text.encode())  # print is not for signal handlers: it may be what was interrupted

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
