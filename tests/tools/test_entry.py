"""How commands begin and end: exit codes, one message for what is refused, the first and the second Ctrl-C."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy
from rich.progress import track

from gemnet.config_files import read_file, settled
from gemnet.errors import GemnetError
from gemnet.quoting import printable
from gemnet.stopping import STOP, stop_file
from gemnet.strict import MOST
from nas.commands import benchmark, search
from nas.commands.console import make_console
from nas.commands.entry import command
from nas.commands.options import OptionsAction, positive
from nas.executors import Call, SerialExecutor

REPOSITORY = Path(__file__).resolve().parents[2]
TOOLS = [path.stem for path in sorted((REPOSITORY / "tools").glob("*.py"))]


def run(error: BaseException | None, *arguments: str) -> int:
    @command("probe", "Interrupted. To go on", resume=True)
    def main(program: str, given: list[str]) -> int:
        if error is not None:
            raise error
        return 0

    return main(arguments)


@pytest.mark.parametrize(
    "error",
    [
        GemnetError("wrong"),
        *(
            OSError(number, os.strerror(number), "a/b.csv")
            for number in (errno.ENOSPC, errno.EACCES, errno.ENAMETOOLONG)
        ),
        IsADirectoryError(errno.EISDIR, "Is a directory", "a"),
        ModuleNotFoundError("No module named '_sqlite3'"),
        MemoryError(),
        RecursionError(),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        sqlalchemy.exc.OperationalError("select 1", {"a": "secret"}, Exception("server closed\nthe connection")),
    ],
    ids=lambda error: type(error).__name__ + str(getattr(error, "errno", "")),
)
def test_what_is_refused_is_one_line_and_exit_code_2(error, capsys) -> None:
    assert run(error) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("python tools/probe.py: error: ")
    assert len(printed.err.splitlines()) == 1
    assert "secret" not in printed.err


def test_a_mistake_of_the_program_is_not_hidden() -> None:
    with pytest.raises(KeyError):
        run(KeyError("x"))


def test_names_can_not_speak_to_the_terminal(capsys) -> None:
    assert run(GemnetError("There is no '\x1b[31mred\x1b]0;title\x07\nfile\r'.")) == 2
    assert capsys.readouterr().err.strip().isprintable()
    assert printable("grün 你好") == "grün 你好"


def test_the_line_that_goes_on_holds_no_password(capsys) -> None:
    url = "postgresql://me:secret@host/base?password=secret"
    assert run(KeyboardInterrupt(), "--storage", url, "--cfg-options", f"ledger={url}", "search.seed=1") == 130
    line = capsys.readouterr().err.strip()
    assert "secret" not in line
    assert "postgresql://host/base" in line
    assert line.endswith("search.seed=1 --resume")


def test_a_nul_byte_is_refused(capsys) -> None:
    assert run(None, "a\0b") == 2
    assert "NUL" in capsys.readouterr().err


class Service:
    """Is interrupted while it works."""

    def __init__(self, number: int, times: int) -> None:
        self.number, self.times = number, times

    def work(self) -> str:
        for _ in range(self.times):
            os.kill(os.getpid(), self.number)
            time.sleep(0.01)
        return "done"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_interrupt_asks_a_training_to_stop_and_the_second_ends_it(tmp_path, capfd, number) -> None:
    asked = []

    @command("probe", "Interrupted. To go on")
    def main(program: str, given: list[str]) -> int:
        with stop_file(tmp_path) as file:
            os.kill(os.getpid(), number)
            asked.append(file.exists())
            os.kill(os.getpid(), number)
            asked.append("at once")
        return 0

    assert main(["a b"]) == 130
    assert asked == [True]
    assert not (tmp_path / STOP).exists()
    first, last = capfd.readouterr().err.strip().split("\n\n")
    assert "ends with its epoch" in first
    assert last == "Interrupted. To go on: python tools/probe.py 'a b'"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("times", "finished"), [(1, ["done"]), (2, [])])
def test_the_first_interrupt_lets_work_end_and_the_second_does_not(number, times, finished, capfd) -> None:
    ended = []

    @command("probe", "Interrupted. To go on")
    def main(program: str, given: list[str]) -> int:
        with SerialExecutor(lambda: Service(number, times)) as executor:
            for n in range(3):
                executor.submit(Call(n, "work"))
            while executor.outstanding:
                ended.extend(outcome.value for outcome in executor.wait())
        return 0

    before = signal.getsignal(number)
    assert main([]) == 130
    assert ended == finished
    assert signal.getsignal(number) is before
    assert "once more stops at once" in capfd.readouterr().err


def test_an_interrupt_with_nothing_under_way_ends_at_once(capsys) -> None:
    @command("probe", "Interrupted. To go on")
    def main(program: str, given: list[str]) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
        return 0

    assert main([]) == 130


@pytest.mark.slow
@pytest.mark.contract
def test_a_reader_that_has_gone_is_no_error() -> None:
    tool = REPOSITORY / "tools" / "zoo.py"
    shell = f"{sys.executable} {tool} list | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, cwd=REPOSITORY)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("tool", ["search", "fidelity", "compare", "train"])
def test_a_yaml_config_is_read_as_data(tool, tmp_path, capsys, monkeypatch) -> None:
    import importlib

    monkeypatch.chdir(tmp_path)
    call = "!!python/object/apply"
    Path("evil.yaml").write_text(f"space: {call}:pathlib.Path.touch [{call}:pathlib.Path ['trap']]\n")
    options = [] if tool == "fidelity" else ["--work-dir", "work"]
    assert importlib.import_module(f"nas.commands.{tool}").main(["evil.yaml", *options]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert [item.name for item in tmp_path.iterdir()] == ["evil.yaml"]


def test_pipes_get_plain_text_even_where_colours_are_forced(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as notebooks do
    monkeypatch.setenv("COLUMNS", "90")
    for stderr in (False, True):
        console = make_console(stderr)
        for _ in track(range(3), "steps", console=console):
            pass
        console.print("[bold]best[/bold] " + "x" * 200)
        assert console.width == 90
    written = capsys.readouterr()
    assert "\x1b" not in written.out + written.err
    assert "best xxx" in written.out
    assert "best xxx" in written.err


def test_help_and_wrong_arguments_do_not_wait_for_torch_and_timm() -> None:
    code = f"""
import contextlib, io, runpy, sys
for tool in {TOOLS}:
    for arguments in (["--help"], ["--no-such-option"], ["--evaluations", "0", "--seeds", "0"]):
        sys.argv = [f"tools/{{tool}}.py", *arguments]
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), contextlib.suppress(SystemExit):
            runpy.run_path(sys.argv[0], run_name="__main__")
        assert "usage:" in said.getvalue(), tool
        assert not {{"gemnet", "torch", "timm", "mmengine"}} & set(sys.modules), tool
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stderr


IMPORTING = """
import sys
from nas.commands.search import main

class Finder:
    def find_spec(self, name, path, target=None):
        if name == "torch":
            raise {error}

sys.meta_path.insert(0, Finder())
sys.exit(main(["--evaluations", "5"]))
"""


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        ("KeyboardInterrupt", 130, ""),  # nothing was begun that could go on
        (
            "ImportError('no \\x1b torch')",
            2,
            "python tools/search.py: error: A module that is needed can't be imported: no \\x1b torch. "
            "Install it for this Python.\n",
        ),
    ],
)
def test_imports_that_fail_or_are_interrupted_end_without_a_traceback(error: str, code: int, said: str) -> None:
    line = [sys.executable, "-c", IMPORTING.format(error=error)]
    done = subprocess.run(line, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert (done.returncode, done.stderr) == (code, said)


@pytest.mark.parametrize("text", ["0", "-1", str(MOST + 1)])
def test_numbers_out_of_range_are_refused_at_once(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=f"got {text}"):
        positive(text)
    assert positive(str(MOST)) == MOST


def test_config_options_given_twice_all_count() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=OptionsAction)
    given = parser.parse_args(["--cfg-options", "a.b=1", "c=x", "--cfg-options", "c=[1,2]", "d=dict(e=3)"])
    assert settled(given.cfg_options, {}) == {"a.b": 1, "c": [1, 2], "d": {"e": 3}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("my photos", "my photos"),
        ("'my photos'", "my photos"),
        ("tom's (old) photos", "tom's (old) photos"),
        ("[my photos, other ones]", ["my photos", "other ones"]),
        ("['my photos', 2]", ["my photos", 2]),
        ("[1,2.5,a,(b,None)]", [1, 2.5, "a", ("b", None)]),
        ("3,true,1e-3", [3, True, 1e-3]),
        ("(a,)", ("a",)),
        ("[]", []),
        ("None", None),
        ("False", False),
        ("", ""),
        ("'a,b'", "a,b"),
        ("'2024'", "2024"),
        ("'a','b'", ["a", "b"]),
    ],
)
def test_config_options_are_read_with_their_blanks(text: str, value: object) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=OptionsAction)
    given = parser.parse_args(["--cfg-options", f"a={text}"]).cfg_options
    for own in ({}, {"a": None}, {"a": 1}, {"a": [1]}):
        assert settled(given, own) == {"a": value}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2024", "2024"),
        ("007", "007"),
        ("1e-3", "1e-3"),
        ("true", True),
        ("bbox,segm", ["bbox", "segm"]),
        ("my photos", "my photos"),
        ("'a,b'", "a,b"),
        ("None", None),
        ("'None'", "None"),
        ("[a,b]", ["a", "b"]),
        ("(1,)", (1,)),
    ],
)
def test_config_options_stay_texts_where_the_config_has_a_text(text: str, value: object, tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=OptionsAction)
    given = parser.parse_args(["--cfg-options", f"a={text}", f"b.0.c={text}", "n=3"]).cfg_options
    (tmp_path / "config.py").write_text("a = 'x'\nb = [dict(c='y')]\nn = 'z'\n")
    assert read_file(tmp_path / "config.py", given) == {"a": value, "b": [{"c": value}], "n": "3"}


def test_config_options_with_brackets_that_do_not_match_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=OptionsAction)
    for text in ("[1,(2]", "1,2]", "(1,[2)"):
        with pytest.raises(SystemExit):
            parser.parse_args(["--cfg-options", f"a={text}"])
        assert "can't be read" in capsys.readouterr().err


def test_a_benchmarks_options_given_twice_all_count() -> None:
    given = ["search", "--options", "evolution.population=9", "--options", "nasgem.encoder=None"]
    assert benchmark._parser("probe").parse_args(given).options == [given[2], given[4]]


@pytest.mark.parametrize(
    ("main", "arguments", "said"),
    [
        (search.main, ["default", "--sedes", "3"], "--sedes 3. Did you mean --seeds for --sedes?"),
        (search.main, ["default", "--max_latency=3"], "Did you mean --max-latency for --max_latency?"),
        (benchmark.main, ["search", "--tabel", "t.csv"], "Did you mean --table for --tabel?"),
        (benchmark.main, ["search", "--xyz"], "unrecognized arguments: --xyz.\n"),
    ],
)
def test_a_misspelt_option_is_told_the_one_that_was_meant(main, arguments, said, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
