"""Curves and intervals as SVG that takes its colours and its type from the page, light or dark."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from saliency_r1.names import TASKS
from saliency_r1.report.read import LABELS

# matplotlib knows no CSS variables, so it draws in colours that occur nowhere else, which are then replaced.
_NAMES = ("ink", "muted", "line", "base", "sft", "cgpo", "accent", "sod", "sis", "cosod", "good")
STAND_IN = {name: f"#0101{index:02x}" for index, name in enumerate(_NAMES, 1)}
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "saliency-r1",
    "text.parse_math": False,
    "font.size": 9,
    "axes.edgecolor": STAND_IN["line"],
    "axes.labelcolor": STAND_IN["muted"],
    "axes.titlecolor": STAND_IN["ink"],
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": STAND_IN["line"],
    "grid.linewidth": 0.6,
    "xtick.color": STAND_IN["line"],
    "ytick.color": STAND_IN["line"],
    "xtick.labelcolor": STAND_IN["muted"],
    "ytick.labelcolor": STAND_IN["muted"],
    "text.color": STAND_IN["ink"],
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}
# Known columns of the training curves, in the order in which they are shown; columns in one tuple share a plot.
PANELS: Mapping[tuple[str, ...], str] = {
    ("loss",): "Loss",
    ("reward", "confidence"): "Reward and confidence",
    ("reward_sod", "reward_sis", "reward_cosod"): "Reward by task",
    ("reward_sod_std", "reward_sis_std", "reward_cosod_std"): "Spread of the reward by task",
    ("reward_sod_min", "reward_sis_min", "reward_cosod_min"): "Least reward by task",
    ("reward_sod_max", "reward_sis_max", "reward_cosod_max"): "Greatest reward by task",
    ("reward_s_measure", "reward_iou"): "Reward of regions by component",
    ("reward_matched_iou",): "Reward of instances: matched IoU",
    ("reward_format",): "Reward of form",
    ("confidence_q10", "confidence_q50", "confidence_q90"): "Confidence, 10 %, median, 90 %",
    ("confidence_reasoning", "confidence_answer"): "Confidence by part",
    ("gap",): "Mean |reward − confidence|",
    ("brier",): "Mean (reward − confidence)²",
    ("rank_correlation",): "Rank correlation with reward",
    ("advantage_positive",): "Share of positive advantages",
    ("advantage_up", "advantage_down"): "Mean advantage above and below zero",
    ("advantage_of_failures",): "Share of |A| on parse failures",
    ("parse_failures",): "Share of responses that do not parse",
    ("truncated",): "Share of responses that were cut off",
    ("entropy",): "Entropy of a token, nats",
    ("entropy_reasoning", "entropy_tags", "entropy_expressions"): "Entropy by part, nats",
    ("kl_to_sft",): "KL to the SFT policy, nats a token",
    ("repetition",): "Share of repeated runs of four tokens",
    ("isr_loss",): "Loss of the interleaved SFT steps",
    ("grad_norm", "isr_grad_norm"): "Norm of the gradient",
    ("isr_cosine",): "Cosine of the RL and the ISR gradient",
    ("tokens",): "Tokens a response",
    ("expressions",): "Expressions a response",
    ("expressions_to_instances",): "Expressions a true instance, SIS",
    ("distinct_expressions",): "Share of expressions not said before",
    ("empty_masks",): "Share of masks left empty",
    ("reasoned",): "Share of responses with a reasoning",
    ("logprob",): "Log-probability of a token",
    ("sampling_gap",): "Probability drawn and forward, gap",
    ("reward_std", "confidence_std"): "Spread of reward and confidence",
    ("lr",): "Learning rate",
}
_PALETTE = {
    **dict.fromkeys(("confidence", "confidence_std", "isr_grad_norm"), "accent"),
    **{f"reward_{task}{suffix}": task for task in TASKS for suffix in ("", "_std", "_min", "_max")},
    "reward_iou": "accent",
    **dict(zip(("entropy_reasoning", "entropy_tags", "entropy_expressions"), TASKS)),
    **dict(zip(("confidence_q10", "confidence_q50", "confidence_q90"), TASKS)),
    "confidence_answer": "accent",
    "advantage_down": "accent",
}
_X = ("step", "update")
_LONGEST = 36  # letters of a name beside a plot


def training(curves: pl.DataFrame, colour: str) -> list[Markup]:
    """One small plot for every numeric column of a training's curves, known ones first and under their titles."""
    x = next(name for name in _X if name in curves.columns)
    # How long a step took says something about a machine, and would make every page another one.
    numeric = [name for name in curves.columns if name != x and not name.startswith("seconds_")]
    numeric = [name for name in numeric if curves[name].dtype.is_numeric() and curves[name].drop_nulls().len()]
    panels = {tuple(name for name in names if name in numeric): title for names, title in PANELS.items()}
    panels.pop((), None)
    shown = {name for names in panels for name in names}
    panels |= {(name,): name.replace("_", " ").capitalize() for name in numeric if name not in shown}
    return [_training_panel(curves, x, names, title, colour) for names, title in panels.items()]


def _training_panel(curves: pl.DataFrame, x: str, names: Sequence[str], title: str, colour: str) -> Markup:
    with rc_context(_STYLE):
        figure, axes = _figure(3.6, 2.2, left=0.6)
        for name in names:
            points = curves.select(x, name).drop_nulls()
            stand_in = STAND_IN[_PALETTE.get(name, colour)]
            values = points[name].to_numpy().astype(float)
            axes.plot(points[x], values, color=stand_in, alpha=0.25, linewidth=0.9)
            few = "o" if len(values) < 12 else ""  # a single point is no line
            axes.plot(points[x], _smooth(values), color=stand_in, label=_label(name), marker=few, markersize=3)
        axes.set_title(title)
        axes.set_xlabel(x)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}".replace("e-0", "e-"))
        if len(names) > 1:
            axes.legend()
        return _svg(figure, f"{LABELS.get(colour, colour)}: {title} by {x}")


def _label(name: str) -> str:
    """A column as it stands in a legend."""
    known = {"grad_norm": "CGPO", "isr_grad_norm": "interleaved SFT"}
    known |= {f"reward_{task}_{suffix}": task for task in TASKS for suffix in ("std", "min", "max")}
    if name in known or name.endswith("_std"):
        return known.get(name) or name.removesuffix("_std")
    return name.partition("_")[2] or name


def _smooth(values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """The centred running mean over a tenth of the curve, shorter at its ends."""
    reach = max(len(values) // 20, 0)
    return np.array([values[max(0, at - reach) : at + reach + 1].mean() for at in range(len(values))])


def precision_recall(curves: pl.DataFrame, dataset: str) -> Markup:
    """Precision over recall of every model on one data set."""
    with rc_context(_STYLE):
        figure, axes = _figure(3.6, 2.9)
        for (model,), curve in curves.filter(dataset=dataset).group_by("model", maintain_order=True):
            stand_in = STAND_IN.get(str(model), STAND_IN["accent"])
            axes.plot(curve["recall"], curve["precision"], color=stand_in, label=LABELS.get(str(model), str(model)))
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
        axes.set_title(dataset)
        axes.legend(loc="lower left")
        return _svg(figure, f"precision over recall on {dataset}")


def calibration(bins: pl.DataFrame, colour: str) -> Markup:
    """Mean reward over mean confidence of bins of responses; on the diagonal confidence says what reward will be."""
    with rc_context(_STYLE):
        figure, axes = _figure(3.6, 2.9)
        low = min(float(bins["confidence"].min()), float(bins["reward"].min()))  # type: ignore[arg-type]
        start = max(0.0, np.floor(low * 10) / 10)
        axes.plot([start, 1], [start, 1], color=STAND_IN["muted"], linewidth=1)
        axes.plot(bins["confidence"], bins["reward"], color=STAND_IN[colour], marker="o", markersize=4)
        axes.set(xlim=(start, 1.02), ylim=(start, 1.02), xlabel="confidence", ylabel="reward")
        axes.set_title("Calibration")
        return _svg(figure, "reward over confidence")


def consistency(annotations: pl.DataFrame) -> Markup:
    """How well the expressions of the annotations lead back to the ground truth, by task."""
    with rc_context(_STYLE):
        figure, axes = _figure(7.2, 2.4)
        tasks = [task for task in TASKS if task in annotations["task"].unique()]
        values = [annotations.filter(task=task)["consistency"].drop_nulls().to_numpy() for task in tasks]
        bins = np.linspace(0, 1, 51).tolist()
        axes.hist(values, bins=bins, stacked=True, color=[STAND_IN[task] for task in tasks], label=tasks)
        axes.set(xlabel="mean IoU of an annotation's expressions with the ground truth", ylabel="annotations")
        low = min((float(part.min()) for part in values if len(part)), default=0.0)
        axes.set_xlim(max(0.0, np.floor(low * 10) / 10), 1)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, ncols=len(tasks))
        return _svg(figure, "histogram of the consistency of annotations")


def gains(scopes: Mapping[str, Mapping[str, float]], colour: str) -> Markup:
    """Differences with their intervals, one line a scope, and a vertical line at zero to compare them with."""
    # A data set's name may be so long that nothing of the figure would be left for its line.
    names = [scope if len(scope) <= _LONGEST else f"{scope[: _LONGEST - 1]}…" for scope in scopes]
    with rc_context(_STYLE | {"axes.grid": False}):
        figure, axes = _figure(5.4, 0.85 + 0.25 * len(scopes), left=0.3 + 0.068 * max(map(len, names)))
        for place, (scope, gain) in enumerate(scopes.items()):
            wide = 3.2 if scope == "overall" else 2.0
            axes.plot([gain["low"], gain["high"]], [place, place], color=STAND_IN[colour], linewidth=wide)
            axes.plot(gain["difference"], place, "o", color=STAND_IN[colour], markersize=wide + 4)
        axes.axvline(0, color=STAND_IN["muted"], linewidth=1)
        axes.set_yticks(range(len(scopes)), names)
        axes.invert_yaxis()
        axes.margins(y=0.08)
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("difference of mean test reward, 95 % interval")
        return _svg(figure, f"{LABELS.get(colour, colour)}: gain of mean test reward with intervals")


def _figure(width: float, height: float, left: float = 0.52) -> tuple[Figure, Axes]:
    """One plot, sizes in inches; fixed margins, so that the axes of plots side by side are aligned."""
    figure = Figure((width, height))
    FigureCanvasSVG(figure)
    figure.subplots_adjust(left / width, 0.46 / height, 1 - 0.16 / width, 1 - 0.28 / height)
    return figure, figure.subplots()


def _svg(figure: Figure, title: str) -> Markup:
    """The figure as an element of the page: no prologue, no metadata, ids of its own, colours by name."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Plots of one page must not share ids; what a plot is called tells them apart.
    prefix = re.sub(r"\W", lambda sign: "-" if sign[0] == " " else f"-{ord(sign[0]):x}-", title)
    text = re.sub(r'\b(id="|url\(#|href="#)', rf"\g<1>{prefix}-", text)
    # Size comes from the page, type too.
    text = re.sub(r'<svg ([^>]*?)width="[^"]+" ?', r"<svg \1", text, count=1)
    text = re.sub(r'<svg ([^>]*?)height="[^"]+" ?', r"<svg \1", text, count=1)
    text = text.replace("<svg ", f'<svg class="plot" role="img" aria-label="{escape(title)}" ', 1)
    for name, stand_in in STAND_IN.items():
        text = text.replace(stand_in, f"var(--{name})")
    return Markup(text)
