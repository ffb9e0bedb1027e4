"""What every stage script shares: how it starts, reports, fails and dies.

Its script is:

    def main(params: Params) -> None:
        device, dtype = prepare_torch(params.runtime, params.seed)
        with atomic_folder("artifacts/sft") as folder:      # saliency_r1.runtime.files
            ...

    if __name__ == "__main__":
        run_stage(main)
"""

import errno
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sized
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, TypeVar

from saliency_r1.params import Params, Runtime, load_params
from saliency_r1.runtime import processes
from saliency_r1.runtime.messages import printable
from saliency_r1.runtime.parent import die_with_program

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
TRY_AGAIN = 75  # the exit code where nobody is at fault and a later run may go well, as in sysexits.h
_PLAIN_LINE_EVERY = 15.0  # seconds between two plain progress lines


class StageError(ValueError):
    """A stage that cannot run as it was started; the message says what to do."""


def run_stage(main: Callable[[Params], None], params_path: Path | str = "params.yaml") -> NoReturn:
    """Read the parameters, run a stage, leave with its exit code.

    An error that a person can mend (a `ValueError` of this package, or one of the operating system) ends as one
    paragraph on stderr and exit code 1, or 75 where a later run may go well by itself; anything else is a defect and
    keeps its traceback.
    """
    die_with_program()
    signal.signal(signal.SIGTERM, _leave)
    _speak_utf8()
    quiet_libraries()
    script = Path(sys.argv[0])
    name = script.stem
    try:
        _check_tree(script)
        main(load_params(params_path))
    except KeyboardInterrupt:
        if processes.is_main():
            print(f"\n{name} interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if not is_user_error(error):
            raise
        print(f"\n{name} stopped: {printable(describe_error(error), keep=chr(10))}", file=sys.stderr)
        if "DVC_STAGE" in os.environ:
            print("The last complete results stay in the cache; `dvc checkout` puts them back.", file=sys.stderr)
        sys.exit(TRY_AGAIN if getattr(error, "transient", False) else 1)
    sys.exit(0)


def _check_tree(script: Path) -> None:
    """Raise `StageError` where the script lies in one tree of the project and this package in another."""
    trees = (folder for folder in script.resolve().parents if (folder / "src/saliency_r1/__init__.py").is_file())
    package = Path(__file__).resolve().parents[1]
    if (tree := next(trees, None)) is not None and package != (tree / "src/saliency_r1").resolve():
        raise StageError(
            f"{script} lies in {tree} but would run the code of {package}, and its result would pass for one of the "
            f"first. Let the script import `own_tree` before `saliency_r1`, as those of stages/ do, or set "
            f"PYTHONPATH={tree / 'src'}"
        )


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """Turn SIGTERM into an exception: its default action would run no `finally` and leave half-written folders."""
    sys.exit(128 + number)


def _speak_utf8() -> None:
    """Print UTF-8 line by line whatever the locale says: a name in a data set must not end a run."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace", line_buffering=True)


def quiet_libraries() -> None:
    """Keep the progress bars and advice of model libraries that are loaded out of a log that has its own."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    if "transformers" in sys.modules:
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()


def is_user_error(error: BaseException) -> bool:
    """Whether an error is one that its message explains: raised on purpose by this package, or by the system."""
    return (
        isinstance(error, OSError)
        or _says_full_disk(error)
        or (isinstance(error, ValueError) and type(error).__module__.partition(".")[0] == "saliency_r1")
    )


def _says_full_disk(error: BaseException) -> bool:
    """Whether a library's own error is the system's about a full disk, as those of safetensors and polars are."""
    return os.strerror(errno.ENOSPC) in str(error)


def describe_error(error: BaseException) -> str:
    """An error as one paragraph: `no space left on device: artifacts/download/x.png`."""
    if isinstance(error, OSError) and error.strerror:
        names = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
        return f"{error.strerror.lower()}{': ' if names else ''}{names}"
    return str(error) or type(error).__name__


def device_fault(device: str, named: str = "") -> str | None:
    """Why a device cannot be used on this machine, if it cannot; torch is imported for cuda and mps alone.

    `named` is what has asked for it, as its reader knows it, if not the parameter `runtime.device`.
    """
    if device in ("auto", "cpu"):
        return None
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        why = "torch finds no NVIDIA GPU with its driver" if torch.version.cuda else "torch was built without CUDA"
    elif device == "mps" and not torch.backends.mps.is_available():
        why = "this machine has no Apple GPU that torch can use"
    else:
        return None
    return f"{named or f'runtime.device = {device!r}'}, and {why}; set it to auto or cpu"


def prepare_torch(runtime: Runtime, seed: int) -> tuple["torch.device", "torch.dtype"]:
    """Fix threads, seeds and deterministic kernels, and say on which device and in which type to compute.

    Raises `StageError` for a device that is not there.
    """
    if fault := device_fault(runtime.device):
        raise StageError(fault)
    # Read by cuBLAS when the first matrix is multiplied; without it deterministic kernels refuse to run on a GPU.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import random

    import numpy as np
    import torch

    device = processes.join(torch.device(_pick_device() if runtime.device == "auto" else runtime.device))
    torch.set_num_threads(runtime.threads)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    # Off the CPU a few kernels have no deterministic form; there a warning is better than no run.
    torch.use_deterministic_algorithms(True, warn_only=device.type != "cpu")
    if device.type == "cpu" and runtime.dtype == "bfloat16" and imitates_bfloat16() and processes.is_main():
        print("this CPU has no instructions for bfloat16; runtime.dtype: float32 is faster, and takes twice the memory",
              file=sys.stderr)  # fmt: skip
    return device, getattr(torch, runtime.dtype)


def imitates_bfloat16() -> bool:
    """Whether this CPU multiplies matrices of bfloat16 without instructions for it: seven times slower than float32."""
    import torch

    has = torch.cpu.get_capabilities()
    return has.get("architecture") == "x86_64" and not (has.get("avx512_bf16") or has.get("amx_bf16"))


def _pick_device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def progress(iterable: Iterable[T], total: int | None = None, label: str = "") -> Iterator[T]:
    """Yield the items and show how far it is: a bar on a terminal, now and then a plain line elsewhere."""
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    if not processes.is_main():
        yield from iterable
    elif sys.stdout.isatty():
        from rich.markup import escape
        from rich.progress import track

        yield from track(iterable, description=escape(printable(label)), total=total)
    else:
        yield from _plain_progress(iterable, total, label)


def _plain_progress(iterable: Iterable[T], total: int | None, label: str) -> Iterator[T]:
    start = last = time.monotonic()
    done = 0
    for done, item in enumerate(iterable, 1):
        yield item
        now = time.monotonic()
        if now - last >= _PLAIN_LINE_EVERY:
            last = now
            share = f"/{total} ({done / total:.0%})" if total else ""
            print(f"{label} {done}{share}, {now - start:.0f} s", flush=True)
    print(f"{label} {done} done, {time.monotonic() - start:.1f} s", flush=True)
