"""A model as one folder that can be handed on: policy, processor, sizes, segmenter, and a card that says what it is.

    config.json, model.safetensors      merged: the base with what was learnt in its weights
    adapter_config.json, ...            else the adapter, and base/ where the base is not one of the hub
    processor, tokenizer, template      with the sizes of the training
    generation_config.json              greedy, as everything here answers
    segmenter/                          where it is not one of the hub
    saliency_r1.json                    sizes, tags, instructions, where base and segmenter come from
    README.md                           the model card

`predict --model`, `Policy.load` and plain transformers read it; an adapter whose base lies in base/ the first two.
What else lies in a folder that is exported to again, a `.git` say, stays.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saliency_r1 import cot, tasks
from saliency_r1.inputs.text import read_json
from saliency_r1.params import Params
from saliency_r1.prediction.card import write_card
from saliency_r1.prediction.models import MANIFEST
from saliency_r1.prediction.predictor import PredictError
from saliency_r1.runtime.files import atomic_folder, link, link_tree, sha256, write_json

if TYPE_CHECKING:
    from saliency_r1.policy import Policy


CARD = "README.md"

# Files that some exports write and others do not: the next export, and `push`, delete them, since those of an earlier
# one would be read too.
_OURS = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
    "base/*",
    "segmenter/*",
    "chat_template.*",
    "tokenizer*",
    "*processor_config.json",
)


@dataclass(frozen=True)
class Sources:
    """What is exported: the folders of a policy, its adapter (None: the policy as it is) and a segmenter.

    `metrics` is the folder with metrics.json and intervals.json, `model` the name that they have results under; ""
    for an adapter of another run, of whose data and results the card then says that they are not known.
    """

    policy: Path
    adapter: Path | None
    segmenter: Path
    metrics: Path
    model: str

    @property
    def report(self) -> dict[str, Any]:
        """What the stage download says of its models and data sets; empty for models that it has not brought."""
        file = self.policy.parent.parent / "report.json"
        return dict(read_json(file)) if file.is_file() else {}

    def origin(self, what: str) -> dict[str, str]:
        """`source` and, for a model of the hub, `revision` of `policy` or `segmenter`."""
        return self.report.get("models", {}).get(what, {"source": getattr(self, what).name})


def export(sources: Sources, params: Params, out: Path, merge: bool, licence: str = "other") -> dict[str, Any]:
    """Write the folder, whole or not at all, and return its manifest. What export does not write stays in it.

    Raises `PredictError` for an `out` that holds something else, or a card that was edited, or in which the process
    runs.
    """
    from saliency_r1.policy import Policy
    from saliency_r1.runtime.stage import prepare_torch, quiet_libraries

    if Path.cwd().is_relative_to(out.resolve()):
        raise PredictError(f"{out} is the folder you are in, or above it, and would be replaced: name another one")
    if out.exists() and not (out / MANIFEST).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise PredictError(f"{out} holds something else than an exported model; name another folder")
    _check_card(out)
    adapter = sources.adapter
    lora = adapter is not None and (adapter / "adapter_config.json").is_file()
    quiet_libraries()
    _, dtype = prepare_torch(params.runtime.model_copy(update={"device": "cpu"}), params.seed)
    policy = Policy.load(sources.policy, adapter, "cpu", dtype, **params.policy.loading)
    about = manifest(sources, params, merged=merge or not lora)
    with atomic_folder(out) as folder:
        policy.processor.save_pretrained(folder)
        if lora and not merge:
            _put_adapter(sources, folder)
        else:
            model = policy.model.merge_and_unload() if lora else policy.model
            model.generation_config = _greedy(policy, params)
            model.save_pretrained(folder)
        _greedy(policy, params).save_pretrained(folder)
        if "folder" in about["segmenter"]:
            link_tree(sources.segmenter, folder / about["segmenter"]["folder"])
        report = sources.report if sources.model else {}
        write_card(folder / CARD, about, sources.metrics, sources.model, report, licence)
        about["card"] = sha256(folder / CARD)
        write_json(folder / MANIFEST, about)
        _keep_others(out, folder)
    return about


def _check_card(out: Path) -> None:
    """Raise `PredictError` where the card in `out` is another than the one that was written there."""
    card = out / CARD
    if card.is_file() and dict(read_json(out / MANIFEST)).get("card") != sha256(card):
        raise PredictError(
            f"{card} is not the card that an export has written there, and would be replaced: move it away, or name "
            "another folder"
        )


def _keep_others(out: Path, folder: Path) -> None:
    """Give `folder`, which takes the place of `out`, what lies in `out` and is of no export."""
    for path in sorted(out.iterdir()) if out.is_dir() else []:
        new = folder / path.name
        if os.path.lexists(new) or any(fnmatch(path.name, pattern.partition("/")[0]) for pattern in _OURS):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, new, symlinks=True, copy_function=link)
        elif path.is_symlink():
            new.symlink_to(os.readlink(path))
        else:
            link(path, new)


def manifest(sources: Sources, params: Params, merged: bool) -> dict[str, Any]:
    """What `saliency_r1.json` says; `prediction.models.choose` reads it."""
    segmenter = sources.origin("segmenter")
    loading = {key: value for key, value in params.policy.loading.items() if key != "gradient_checkpointing"}
    return {
        "format": 1,
        "form": "merged" if merged else "adapter",
        "base": sources.origin("policy"),
        "segmenter": segmenter if "revision" in segmenter else {**segmenter, "folder": "segmenter"},
        "dtype": params.runtime.dtype,
        "loading": loading,
        "sizes": {"max_new_tokens": params.policy.max_new_tokens, "cosod_chunk": params.download.cosod_chunk},
        "tags": list(cot.TAGS),
        "instructions": {task.name: task.instruction for task in tasks.TASKS.values()},
    }


def _put_adapter(sources: Sources, folder: Path) -> None:
    """Copy the adapter's two files, with its base named as others can find it."""
    assert sources.adapter is not None
    shutil.copyfile(sources.adapter / "adapter_model.safetensors", folder / "adapter_model.safetensors")
    config = dict(read_json(sources.adapter / "adapter_config.json"))
    base = sources.origin("policy")
    shutil.copyfile(sources.policy / "config.json", folder / "config.json")
    if "revision" in base:
        config |= {"base_model_name_or_path": base["source"], "revision": base["revision"]}
    else:
        config |= {"base_model_name_or_path": "base", "revision": None}
        link_tree(sources.policy, folder / "base")
    write_json(folder / "adapter_config.json", config)


def _greedy(policy: Policy, params: Params) -> Any:
    """How transformers generates what `Policy.generate` does."""
    from transformers import GenerationConfig

    return GenerationConfig(
        do_sample=False,
        max_new_tokens=params.policy.max_new_tokens,
        repetition_penalty=1.0,
        suppress_tokens=policy.suppressed,
        eos_token_id=policy.end_id,
        pad_token_id=policy.pad_id,
        use_cache=True,
    )


def push(folder: Path, repository: str, public: bool = False) -> str:
    """Upload an exported folder to the hub, into a private repository unless `public`; returns its address.

    Weights, base and segmenter of an earlier export go; what a person has put there stays.
    The key comes from the environment (`HF_TOKEN`). Raises `PredictError` where a repository is there and public
    without its being asked for, or the hub refuses.
    """
    from huggingface_hub import HfApi

    from saliency_r1.data.models import hub_errors

    api = HfApi()
    try:
        api.create_repo(repository, private=not public, exist_ok=True)
        if not public and not api.model_info(repository).private:
            raise PredictError(f"{repository} is there already, and public; --public says that this is meant")
        done = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message="Exported by saliency-r1",
            delete_patterns=list(_OURS),
        )
    except hub_errors() as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise PredictError(f"{repository}: the hub does not take it ({reason}); check the name and HF_TOKEN") from None
    return str(done.commit_url)
