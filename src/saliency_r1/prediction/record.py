"""What was said, kept while it is being said: a line a prompt in a journal, and the whole files at the end.

A run that is killed leaves its journal (`.answers.jsonl`); the next one with `--skip-existing` reads it, and what an
earlier run has finished in `response.json`. If both answered a picture, the later answer counts; an answer to
several pictures is dropped as a whole when one of them is answered anew. A run without `--skip-existing` begins anew:
with its first answer `response.json` goes, whose pictures' results are about to be replaced. Both files say what was
written (`prediction.written`): any other file is not ours, and stays.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from saliency_r1.inputs.codes import coded
from saliency_r1.inputs.errors import InputError
from saliency_r1.inputs.text import read_json
from saliency_r1.prediction.formats import COCO, LINES, WHOLE
from saliency_r1.prediction.predictor import Answer, PredictError
from saliency_r1.prediction.work import Picture, Prompt
from saliency_r1.prediction.written import JOURNAL, RESPONSE, lines_of, paths_of, written
from saliency_r1.runtime.files import sha256, write_json, write_text
from saliency_r1.runtime.messages import printable


class Record:
    """The answers in a folder of results, by the names of their pictures, and where the next ones go.

    `asked` are the formats; those of one file (`coco`, `jsonl`) are made of the answers' regions. With `keep` the
    answers of earlier runs stay; raises `PredictError` where they are another model's, or another task's.
    """

    def __init__(self, out: Path, task: str, model: str, asked: Sequence[str] = (), keep: bool = False) -> None:
        self.out, self.task, self.model = out, task, model
        self.asked = asked
        self.together = [name for name in asked if name in WHOLE]
        self.written = written(out)
        self.entries: dict[tuple[str, ...], dict[str, Any]] = {}
        self._answered: dict[str, tuple[str, ...]] = {}  # the names that a name was answered with
        self._folder = os.path.relpath(os.getcwd(), os.path.realpath(out))
        self._keep, self._begun = keep, False
        if keep:
            for entry in self._earlier():
                self._take(entry)

    def begin(self, prompt: Prompt) -> None:
        """Say which files are about to be written, before the first is: those a further run may replace."""
        self._start()
        paths = paths_of(prompt, self.asked)
        self._append({"writing": paths})
        self.written.add(paths)

    def _start(self) -> None:
        """Begin anew, unless answers of earlier runs are kept."""
        if not self._begun and not self._keep:
            self.written.begin_anew()
            # The journal first: a run that is killed between the two has changed nothing.
            write_text(self.out / JOURNAL, _line({"left": sorted(self.written.left)}))
            (self.out / RESPONSE).unlink(missing_ok=True)
        self._begun = True

    def has(self, prompt: Prompt) -> bool:
        """Whether these pictures were answered together, as they are now, in as much detail as is asked for now.

        Raises `PredictError` where an earlier run has answered another picture of the same name.
        """
        for picture in prompt:
            self._check_same(picture)
        entry = self.entries.get(tuple(picture.name for picture in prompt))
        if entry is None or (self.together and "regions" not in entry):
            return False
        return "sha256" not in entry or entry["sha256"] == _hashes(prompt)  # a run of before has kept none

    def add(self, answer: Answer, prompt: Prompt) -> None:
        """Keep an answer; from now on no killed run loses it."""
        self._start()
        entry = self._entry(answer, prompt)
        self._append({"task": self.task, "model": self.model, **entry})
        self._take(entry)

    def _append(self, content: dict[str, Any]) -> None:
        line = _line(content)
        with (self.out / JOURNAL).open("a+b") as journal:
            if journal.seek(0, os.SEEK_END):
                journal.seek(-1, os.SEEK_END)
                if journal.read(1) != b"\n":  # a killed run has left half a line, which must not swallow this one
                    journal.write(b"\n")
            journal.write(line.encode("utf-8", "backslashreplace"))

    def finish(self) -> list[Path]:
        """Write the files that hold all answers, and return them; the journal goes. Without an answer, nothing."""
        if not self.entries:
            return []
        answers = list(self.entries.values())
        paths = [RESPONSE, *(WHOLE[name] for name in self.together)]
        self.written.keep_what_is_there(self.out)
        self.written.add(paths)
        self._tell_left()
        about = {"task": self.task, "model": self.model, "files": sorted(self.written.files - {RESPONSE})}
        left = {"left": sorted(self.written.left)} if self.written.left else {}
        write_json(self.out / RESPONSE, {**about, **left, "answers": answers})
        detailed = self._detailed(answers) if self.together else []
        if "coco" in self.together:
            write_json(self.out / COCO, coco(detailed))
        if "jsonl" in self.together:
            write_text(self.out / LINES, "".join(map(_line, lines_for(detailed, self.task))))
        (self.out / JOURNAL).unlink(missing_ok=True)
        return [self.out / path for path in paths]

    def _tell_left(self) -> None:
        """Say which files of earlier runs are still there."""
        if left := self.written.left:
            more = f" and {len(left) - 1} more" if len(left) > 1 else ""
            _warn(
                f"{printable(min(left))}{more} in {printable(self.out)}: of an earlier run, whose answers {RESPONSE} "
                "no longer holds"
            )

    def _take(self, entry: dict[str, Any]) -> None:
        """Count this entry, and no longer those that share a picture with it."""
        names = tuple(entry["names"])
        for other in {self._answered[name] for name in names if name in self._answered} - {names}:
            del self.entries[other]
            for name in other:
                del self._answered[name]
        self.entries[names] = entry
        self._answered.update(dict.fromkeys(names, names))

    def _check_same(self, picture: Picture) -> None:
        names = self._answered.get(picture.name)
        if names is None:
            return
        entry = self.entries[names]
        # Paths are kept as they were given, seen from the folder that the run was started in.
        begin = os.path.join(os.path.realpath(self.out), entry.get("folder", self._folder))
        known = os.path.realpath(os.path.join(begin, entry["images"][names.index(picture.name)]))
        if known != os.path.realpath(picture.path):
            raise PredictError(
                f"{self.out} holds the answer to another picture that is called {picture.name}: {known}, not "
                f"{picture.path}; name another folder (--out), or leave --skip-existing out"
            )

    def _detailed(self, answers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The answers with regions; says which pictures have none, of a run that was not asked for them."""
        without = [name for answer in answers if "regions" not in answer for name in answer["names"]]
        if without:
            more = f" and {len(without) - 1} more" if len(without) > 1 else ""
            files = " and ".join(name for one, name in WHOLE.items() if one in self.together)
            _warn(f"not in {files}: {printable(without[0])}{more}, answered by an earlier run that kept no regions")
        return [answer for answer in answers if "regions" in answer]

    def _entry(self, answer: Answer, prompt: Prompt) -> dict[str, Any]:
        images = [str(picture.path) for picture in prompt]
        entry: dict[str, Any] = {
            "folder": self._folder,
            "images": images,
            "names": [picture.name for picture in prompt],
            "response": answer.text,
            "reasoning": answer.reasoning,
            "expressions": [
                {"image": images[item.image], "kind": item.kind, "text": item.text} for item in answer.expressions
            ],
            "scores": [round(segment.score, 6) for segment in answer.instances],
            "errors": list(answer.errors),
            "attempts": answer.attempts,
            "sha256": _hashes(prompt),
        }
        if answer.parts:
            entry["parts"] = list(answer.parts)
        if self.together:
            entry["sizes"] = [list(size) for size in answer.sizes]
            entry["regions"] = [[_coded(region) for region in regions] for regions in answer.regions]
        return entry

    def _earlier(self) -> Iterator[dict[str, Any]]:
        """The entries of earlier runs, the latest last."""
        if (self.out / RESPONSE).is_file():
            try:
                content = read_json(self.out / RESPONSE)
                entries = [(content["task"], content.get("model"), entry) for entry in content["answers"]]
            except (InputError, KeyError, TypeError, AttributeError) as error:
                raise PredictError(f"{self.out / RESPONSE} is not what predict writes ({error}); remove it") from None
            yield from self._own(entries)
        lines = lines_of(self.out / JOURNAL)
        yield from self._own([(line.pop("task"), line.pop("model"), line) for line in lines if "task" in line])

    def _own(self, entries: Sequence[tuple[str, str | None, dict[str, Any]]]) -> Iterator[dict[str, Any]]:
        for task, model, entry in entries:
            if (task, _weights(model)) != (self.task, _weights(self.model)):
                raise PredictError(
                    f"{self.out} holds answers of {model} to {task}, not of {self.model} to {self.task}: name another "
                    "folder (--out), or leave --skip-existing out"
                )
            if "names" in entry:
                yield entry


def _hashes(prompt: Prompt) -> list[str]:
    """What is in the files of a prompt: a picture that was edited since is another one."""
    return [_hash(picture.path) for picture in prompt]


def _hash(path: Path) -> str:
    """The SHA-256 of a file; empty for one that cannot be read, which its reader will say."""
    with contextlib.suppress(OSError):
        if os.path.isfile(path):  # a pipe would be waited for
            return sha256(path)
    return ""


def _weights(model: str | None) -> str:
    """The hash within the name that `models.identity` gives: it tells models apart, and a moved folder keeps it."""
    return (model or "").rpartition(" (")[2]


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False) + "\n"


def _warn(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _coded(region: Any) -> dict[str, Any]:
    """A region as COCO writes one: run lengths, area, box (left, top, width, height)."""
    return {"text": region.text, "score": round(float(region.score), 6), **coded(region.mask)}


def coco(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Answers as a COCO data set: images by path, one annotation a region that has a pixel, with its score."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for answer in answers:
        for place, name in enumerate(answer["names"]):
            height, width = answer["sizes"][place]
            # As the file is called on the disk; a name is written anew, in composed letters.
            inside = Path(answer["images"][place]).parts[-1 - name.count("/") :]
            images.append({"id": len(images) + 1, "file_name": "/".join(inside), "height": height, "width": width})
            for region in answer["regions"][place]:
                if region["area"]:
                    about = {key: region[key] for key in ("segmentation", "area", "bbox", "score")}
                    annotations.append(
                        {
                            "id": len(annotations) + 1, "image_id": len(images), "category_id": 1, "iscrowd": 0,
                            **about, "caption": region["text"],
                        }
                    )  # fmt: skip
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "salient"}]}


def lines_for(answers: Sequence[dict[str, Any]], task: str) -> Iterator[dict[str, Any]]:
    """Answers as one line a picture."""
    for answer in answers:
        for place, (image, name) in enumerate(zip(answer["images"], answer["names"])):
            said = [item["text"] for item in answer["expressions"] if item["image"] == image]
            height, width = answer["sizes"][place]
            yield {
                "image": image, "name": name, "task": task, "height": height, "width": width, "expressions": said,
                "reasoning": answer["reasoning"], "errors": answer["errors"], "regions": answer["regions"][place],
            }  # fmt: skip
