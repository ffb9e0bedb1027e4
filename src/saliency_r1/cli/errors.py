"""How a command ends: in results, or in one paragraph and an exit code, whatever happens in it.

0 is success, 1 an error, 2 a wrong command line (which typer says), 130 an interruption (which `cli.main` says).
Nothing is caught by a list of types: what nobody has thought of is said as such, with the input it was about, and
`--debug` shows where it happened.
"""

from __future__ import annotations

import codecs
import contextlib
import inspect
import io
import os
import sys
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from importlib.util import find_spec
from typing import Annotated, Any

import typer

_DEBUG = inspect.Parameter(
    "debug",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[bool, typer.Option("--debug", help="show the traceback of an error")],
)
_debugging: ContextVar[bool] = ContextVar("debugging", default=False)
_SPELT = {"–": "-", "—": "-", "→": "->", "…": "...", "±": "+-", "²": "^2"}


def command(extra: str = "") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function the body of a command that ends well; it gets the option `--debug`.

    `extra` names the part of the package that has to be installed for it (`pip install 'saliency-r1[predict]'`).
    """

    def decorate(body: Callable[..., None]) -> Callable[..., None]:
        @wraps(body)
        def run(*arguments: Any, debug: bool = False, **options: Any) -> None:
            speak_plainly()
            _debugging.set(debug)
            try:
                body(*arguments, **options)
                sys.stdout.flush()
            except (SystemExit, typer.Exit, typer.Abort, typer.BadParameter):
                raise
            except BrokenPipeError:
                _stop_speaking()
                raise typer.Exit(1) from None
            except Exception as error:
                if debug:
                    raise
                say(describe(error, extra), error=True)
                raise typer.Exit(1) from None

        # typer reads the options of a command from its signature, and takes one that stands ready as it is: annotations
        # that are text (`from __future__ import annotations`) would cost the options their help, bounds and names.
        signature = inspect.signature(body, eval_str=True)
        run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), _DEBUG])  # type: ignore[attr-defined]
        run.__annotations__ = {**body.__annotations__, "debug": _DEBUG.annotation}
        return run

    return decorate


def raise_if_debugging(error: Exception) -> None:
    """Raise an error that would be told and survived, where its traceback is asked for."""
    if _debugging.get():
        raise error


def require(*modules: str) -> None:
    """Raise what an import of the modules would raise, before any work; nothing is imported."""
    for name in modules:
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def describe(error: Exception, extra: str = "") -> str:
    """One paragraph about an error: what is wrong, with what, and what to do."""
    from saliency_r1.runtime.messages import printable
    from saliency_r1.runtime.stage import describe_error, is_user_error

    if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] != "saliency_r1":
        package = f"saliency-r1[{extra}]" if extra else "saliency-r1"
        return f"{error.name} is not installed; this needs: pip install '{package}'"
    notes = ", ".join(getattr(error, "__notes__", ()))
    if is_user_error(error):
        text = describe_error(error)
        # Most such messages begin with the file; the system's own about a full disk does not.
        about = f" ({notes})" if notes and notes not in text else ""
        return printable(text, keep="\n") + about
    where = f" at {notes}" if notes else ""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's; nothing imports it here
        return f"out of memory{where}: less at once takes less (`--batch`, where the command has it), smaller files too"
    what = " ".join(str(error).split())[:500]
    return (
        f"unexpected {type(error).__name__}{where}{': ' if what else ''}{printable(what)}\n"
        "This is either a file that nobody has thought of or a defect; --debug shows where it happened."
    )


def say(text: str, error: bool = False) -> None:
    """Print a line, on stderr if it is about an error. What cannot be written says where to."""
    try:
        print(text, file=sys.stderr if error else sys.stdout, flush=True)
    except OSError as fault:
        fault.add_note("standard error" if error else "standard output")
        raise


def speak_plainly() -> None:
    """Let no character end a command: what a terminal cannot show is spelt, `\\u732b`, in whatever encoding it has."""
    codecs.register_error("saliency-r1", _spell)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever has started the command (`>&-`)
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  it stays open to the end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="saliency-r1")


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_SPELT.get(one) or one.encode("ascii", "backslashreplace").decode() for one in text), error.end


def _stop_speaking() -> None:
    """The reader of a pipe has left (`| head`): what is still to be written goes nowhere, without a complaint."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
