"""How the model of a package is run, whatever version of this one has written the package's params.yaml.

A package stays what it was when the project goes on: sections come and go, and a champion has to be judged and
predicted with all the same. So of its file only these sections are read, of them what is known here, and what they do
not say yet has the value that was meant before it could be said.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from saliency_r1.params import NEUTRAL, ParamsError, Policy, Runtime, Section, Segmenter
from saliency_r1.params.complaints import complaint
from saliency_r1.params.section import Count, Seed
from saliency_r1.yaml_loader import YamlError, load_yaml

_UNSAID: dict[str, Any] = {
    "seed": 0,
    "runtime": {"device": "auto", "dtype": "float32", "threads": 1},
    "policy": {"batch_size": 16, "attention": "sdpa", "autocast": False, "gradient_checkpointing": False},
    "segmenter": {"batch_images": 16, "batch_phrases": 64},
    "download": {"cosod_chunk": 5},
}


class Chunk(Section):
    """How many images of a group a prompt has at most."""

    cosod_chunk: Count


class Packaged(Section):
    """What of a package's params.yaml says how its model is run."""

    seed: Seed
    runtime: Runtime
    policy: Policy
    segmenter: Segmenter
    download: Chunk

    @property
    def deciding(self) -> dict[str, Any]:
        """What of the policy's section decides its answers: what kept ones are of."""
        return self.model_dump(include={"policy"}, exclude=NEUTRAL)


def load_packaged(path: Path) -> Packaged:
    """Read a package's params.yaml. Raises `ParamsError` where a size of pictures or answers is missing or wrong."""
    try:
        content = load_yaml(path)
        if not isinstance(content, Mapping):
            raise ParamsError(f"{path}: expected a mapping of sections, found {type(content).__name__}")
        return Packaged.model_validate({name: _known(name, content.get(name)) for name in _UNSAID})
    except YamlError as error:
        raise ParamsError(str(error)) from None
    except ValidationError as error:
        raise ParamsError("\n".join(f"{path}: {complaint(dict(one), Packaged)}" for one in error.errors())) from None


def _known(name: str, said: Any) -> Any:
    """What a file says under a name, without the keys that are unknown here and with those that it lacks."""
    unsaid, kind = _UNSAID[name], Packaged.model_fields[name].annotation
    if said is None:
        return unsaid
    if not (isinstance(said, Mapping) and isinstance(kind, type) and issubclass(kind, BaseModel)):
        return said
    return unsaid | {key: value for key, value in said.items() if key in kind.model_fields}
