"""The card of an exported model: where it comes from, what it was trained on, how it does, and what it cannot do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from saliency_r1.inputs.text import read_json
from saliency_r1.registry.results import results
from saliency_r1.runtime.files import write_text

_SHOWN = {"Sm": "S-measure", "maxFm": "max F", "MAE": "MAE", "AP": "AP", "AP50": "AP50"}


def write_card(path: Path, about: Mapping[str, Any], metrics: Path, model: str, report: Mapping[str, Any],
               licence: str) -> None:  # fmt: skip
    """Write the card.

    `metrics` is a folder with metrics.json and, if the run made them, intervals.json, in which the results of `model`
    are looked up; `report` what the stage download said of its data sets. Where something is not known, the card says
    so.
    """
    from huggingface_hub import ModelCardData

    scores, intervals = (_results(metrics / name, model) for name in ("metrics.json", "intervals.json"))
    head = ModelCardData(
        license=licence,
        library_name="transformers" if about["form"] == "merged" else "peft",
        pipeline_tag="image-text-to-text",
        base_model=about["base"]["source"] if "revision" in about["base"] else None,
        tags=["saliency", "salient-object-detection", "saliency-r1"],
        model_name=model if scores else None,
        eval_results=list(_eval_results(scores)) or None,
    )
    body = "\n\n".join([*_intro(about), *_data(report), *_table(scores, intervals), *_limits(scores, licence)])
    write_text(path, f"---\n{head.to_yaml()}\n---\n\n{body}\n")


def evaluated(metrics: Path) -> list[str]:
    """The models that a folder of metrics has results of."""
    file = metrics / "metrics.json"
    return list(read_json(file)) if file.is_file() else []


def _results(file: Path, model: str) -> dict[str, dict[str, Any]]:
    return dict(read_json(file).get(model, {})) if file.is_file() else {}


def _eval_results(scores: Mapping[str, Mapping[str, float]]) -> Iterator[Any]:
    from huggingface_hub import EvalResult

    for dataset, values in scores.items():
        for measure, value in _shown(values):
            yield EvalResult(
                task_type="image-segmentation",
                dataset_type=dataset,
                dataset_name=dataset,
                metric_type=measure,
                metric_name=_SHOWN[measure],
                metric_value=round(value, 4),
            )


def _shown(values: Mapping[str, float]) -> list[tuple[str, float]]:
    return [(measure, values[measure]) for measure in _SHOWN if isinstance(values.get(measure), int | float)]


def _named(origin: Mapping[str, str]) -> str:
    return f"`{origin['source']}` at revision `{origin['revision']}`" if "revision" in origin else (
        f"`{origin['source']}`, a folder that is part of this one"
    )  # fmt: skip


def _intro(about: Mapping[str, Any]) -> Iterator[str]:
    yield "# Saliency with language and masks"
    weights = "the base with the adapter merged into its weights" if about["form"] == "merged" else "an adapter"
    base = about["base"]
    origin = _named(base) if about["form"] == "adapter" or "revision" in base else f"`{base['source']}`"
    yield (
        f"This folder holds {weights}. The model looks at an image or a group of images, reasons about what stands out "
        "and names it; a referring segmenter turns each name into a mask."
    )
    yield f"- Base: {origin}\n- Segmenter: {_named(about['segmenter'])}\n- Computed in: {about['dtype']}"
    yield "    saliency-r1 predict photos/ --model <this folder>"
    yield "The model was trained with these instructions, and answers in form to them alone:"
    yield "\n".join(f"- `{task}`: {text}" for task, text in about["instructions"].items())
    yield f"Tags of an answer: {', '.join(f'`<{tag}>`' for tag in about['tags'])}."


def _data(report: Mapping[str, Any]) -> Iterator[str]:
    yield "## Training data"
    used = {name: one for name, one in report.get("imports", {}).items() if name.rpartition("/")[2] in ("train", "val")}
    if not used:
        yield "Not known: the models were not brought by the pipeline whose results lie here."
        return
    rows = [f"| {name} | {one['images']} | {one.get('licence', 'not stated')} |" for name, one in used.items()]
    yield "\n".join(["| data set | images | licence |", "|---|---|---|", *rows])


def _table(scores: Mapping[str, Mapping[str, float]], intervals: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield "## Results"
    if not scores:
        yield "None were given: this model has not been evaluated in the run that it was exported from."
        return
    yield "\n".join(results(scores, intervals, _SHOWN))
    yield "Test split, greedy answers; 95 % intervals by bootstrap over images, over groups where there are any."


def _limits(scores: Mapping[str, Mapping[str, float]], licence: str) -> Iterator[str]:
    yield "## Limits"
    failures = {dataset: values["parse_failures"] for dataset, values in scores.items() if "parse_failures" in values}
    lines = [
        "All measurements are those above; on other kinds of pictures nothing is known.",
        "What stands out is a judgement of the annotators of the training data, and of the habits that come with it.",
        "The reasoning is text that goes with the answer; that it is the cause of the answer is not shown.",
        "A mask is the segmenter's: what it does not find by name, the model cannot show.",
    ]
    if failures:
        worst = max(failures, key=lambda dataset: failures[dataset])
        lines.append(
            f"Answers that do not follow the grammar give an empty map: at most {failures[worst]:.1%} ({worst}) here."
        )
    yield "\n".join(f"- {line}" for line in lines)
    yield "## Licence"
    yield f"`{licence}`. The licences of the base, the segmenter and the training data go on holding beside it."
