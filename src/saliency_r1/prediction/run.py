"""Answering a whole list of prompts into a folder: in batches, past what fails, from where an earlier run ended."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from filelock import FileLock, Timeout
from PIL import Image

from saliency_r1.inputs.find import key, shown
from saliency_r1.prediction.formats import WHOLE, write_files
from saliency_r1.prediction.predictor import Answer, Failure, PredictError, Predictor, read_image
from saliency_r1.prediction.record import Record
from saliency_r1.prediction.work import Picture, Prompt
from saliency_r1.prediction.written import RESPONSE, paths_of, written
from saliency_r1.runtime.messages import printable

MOST_PIXELS = 64_000_000  # of the pictures that are answered at once; the one that passes it is the last of them


class Done(NamedTuple):
    """What became of a prompt: an answer, or why there is none."""

    prompt: Prompt
    outcome: Answer | Failure

    @property
    def name(self) -> str:
        """The prompt's pictures, as a person reads them."""
        return name_of(self.prompt)


def name_of(prompt: Prompt) -> str:
    """The paths of a prompt's pictures, for messages."""
    return ", ".join(printable(shown(picture.path)) for picture in prompt)


@contextlib.contextmanager
def alone(out: Path) -> Iterator[None]:
    """Hold a folder of results while the block runs.

    Two runs in one folder would end with the answers of the later one in `response.json`, and the others lost. Raises
    `PredictError` where another run writes there, or nothing can be written; the lock is gone when its holder dies,
    however it dies.
    """
    lock = FileLock(out / ".answers.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise PredictError(
            f"another run is writing into {out}: wait until it is over, or name another folder (--out)"
        ) from None
    except (OSError, NotImplementedError):  # a file system without locks: a mounted drive, say
        if not os.access(out, os.W_OK):
            raise PredictError(f"nothing can be written into {out}: name another folder (--out)") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows keeps what is open
            os.unlink(lock.lock_file)  # before the release: from then on it may be another's
        lock.release()


@contextlib.contextmanager
def filling(out: Path) -> Iterator[None]:
    """Let what is written in the block say which disk is full: the system does not."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            error.add_note(printable(f"in {out}; once there is room, --skip-existing goes on from here"))
        raise


def check_places(pictures: Sequence[Picture], asked: Sequence[str], out: Path, others: Sequence[Path] = ()) -> None:
    """Raise `PredictError` where a result would replace a picture that was given, one of the `others`, or any file
    that no run has written: ground truth, say, which lies in `masks/` as well; and where it has no place, because a
    file is where its folder has to be, or a folder in its own place.
    """
    if os.path.lexists(out) and not os.path.isdir(out):
        raise PredictError(f"{out} is no folder: name one for the results (--out)")
    places = {path: one for one in pictures for path in paths_of((one,), asked)}
    _check_folders(places, out)
    # `os.path` and not `Path`, here and below, which raises for a name that is too long for its suffix.
    read = {_identity(path): path for path in [*(one.path for one in pictures), *others] if os.path.exists(path)}
    known = written(out).all
    for path in [RESPONSE, *(WHOLE[name] for name in asked if name in WHOLE), *places]:
        result = out / path
        if not os.path.exists(result):
            continue
        if os.path.isdir(result):
            raise PredictError(
                f"{result} is a folder, where a result is to be written; move it, or name another (--out)"
            )
        if source := read.get(_identity(result)):
            raise PredictError(f"{result} would be written over {source}, which is read; name another folder (--out)")
        if path not in known:
            raise PredictError(
                f"{result} is there, and no earlier run has written it: it would be lost; name another folder (--out), "
                "or move it away"
            )


def _check_folders(places: Mapping[str, Picture], out: Path) -> None:
    """Raise `PredictError` where the place of a result is a folder of another's, or a file that is there is one."""
    files = {key(path): picture for path, picture in places.items()}
    checked: set[str] = set()
    for path, picture in places.items():
        for folder in map(str, list(PurePosixPath(path).parents)[:-1]):
            if folder in checked:
                continue
            checked.add(folder)
            if other := files.get(key(folder)):
                raise PredictError(
                    f"{out / folder} would be the result of {other.path} and the folder of those of {picture.path}: "
                    "rename one or give them a folder each (--out)"
                )
            if os.path.lexists(out / folder) and not os.path.isdir(out / folder):
                raise PredictError(
                    f"{out / folder} is no folder, which the result of {picture.path} needs; move it away, or name "
                    "another folder (--out)"
                )


def still_to_do(prompts: Sequence[Prompt], asked: Sequence[str], record: Record) -> list[Prompt]:
    """The prompts that lack a file, or their place in the record."""

    def is_there(prompt: Prompt) -> bool:
        paths = paths_of(prompt, asked)
        return record.has(prompt) and all(
            path in record.written.files and os.path.isfile(record.out / path) for path in paths
        )

    return [prompt for prompt in prompts if not is_there(prompt)]


def answer_all(
    open_predictor: Callable[[], Predictor],
    prompts: Iterable[Prompt],
    asked: Sequence[str],
    record: Record,
    batch: int,
    tell: Callable[[Done], None],
    starts: Callable[[str], None] = lambda name: None,
) -> list[Done]:
    """Answer prompts, write their files, keep them in the record; returns those that failed.

    The models are opened when the first picture was read: a list of wrong files costs no loading. A file that
    cannot be written, on a full disk, ends the work; `tell` hears of each prompt when its files are there.
    """
    failed: list[Done] = []
    predictor: Predictor | None = None
    for part in _read_ahead(prompts, batch, starts):
        readable = [(prompt, images) for prompt, images in part if not isinstance(images, Failure)]
        done = {prompt: outcome for prompt, outcome in part if isinstance(outcome, Failure)}
        answers: dict[Prompt, Answer | Failure] = {}
        if readable:
            predictor = predictor or open_predictor()
            outcomes = predictor.answer([images for _, images in readable], record.task)
            answers = {prompt: outcome for (prompt, _), outcome in zip(readable, outcomes, strict=True)}
        pictures = dict(readable)
        for prompt, _ in part:
            outcome = done.get(prompt) or answers[prompt]
            if isinstance(outcome, Answer):
                try:
                    with filling(record.out):
                        record.begin(prompt)
                        write_files(outcome, pictures[prompt], prompt, asked, record.out)
                        record.add(outcome, prompt)
                except PredictError as error:
                    outcome = Failure(error)
            if isinstance(outcome, Failure):
                outcome.error.add_note(name_of(prompt))
                failed.append(Done(prompt, outcome))
            tell(Done(prompt, outcome))
    return failed


def _read_ahead(
    prompts: Iterable[Prompt], batch: int, starts: Callable[[str], None]
) -> Iterator[list[tuple[Prompt, list[Image.Image] | Failure]]]:
    """Prompts with their pictures, at most `batch` at a time, fewer where the pictures are large."""
    part: list[tuple[Prompt, list[Image.Image] | Failure]] = []
    pixels = 0
    for prompt in prompts:
        if not part:
            starts(name_of(prompt))
        images = _pictures(prompt)
        part.append((prompt, images))
        pixels += 0 if isinstance(images, Failure) else sum(image.width * image.height for image in images)
        if len(part) == batch or pixels >= MOST_PIXELS:
            yield part
            part, pixels = [], 0
    if part:
        yield part


def _pictures(prompt: Prompt) -> list[Image.Image] | Failure:
    try:
        return [read_image(picture.path) for picture in prompt]
    except (PredictError, OSError) as error:
        return Failure(error)


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
