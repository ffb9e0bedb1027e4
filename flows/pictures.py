"""Pictures of a run for the Prefect UI: what the models find, how far data has moved, what the judge has seen.

They stand in artifacts of Markdown, each with its bytes in its address, `data:image/...`: nothing has to be served.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from prefect.artifacts import create_markdown_artifact

SIDE = 1400  # pixels, at most
GOOD, BAD, LINE = "#2b8a3e", "#d9480f", "#868e96"
MOST = 16  # bars


def show_overview(folder: Path) -> None:
    """Two test samples a task and what every model finds, of a tree whose report is made."""
    from saliency_r1.report.pictures import jpeg_uri

    with Image.open(folder / "artifacts" / "report" / "overview.png") as picture:
        text = f"![image, ground truth and what each model finds]({jpeg_uri(picture, SIDE)})"
    create_markdown_artifact(text, key="overview", description="Test samples, model by model")


def show_decision(text: str, decision: Mapping[str, Any], against: str) -> None:
    """The judge's words, and its differences with their intervals, if there was somebody to compare with."""
    if decision["overall"]:
        text += f"\n![differences with their intervals]({differences(decision)})\n"
    create_markdown_artifact(text, key="decision", description=f"Against {against}")


def show_drift(rows: Sequence[Mapping[str, Any]]) -> None:
    """How far each measure of the data lies from the champion's, the farthest first."""
    if any("distance" in row for row in rows):
        text = f"![distance of each measure]({distances(rows)})"
        create_markdown_artifact(text, key="drift-picture", description="Distance from the champion's data")


def differences(decision: Mapping[str, Any]) -> str:
    """A decision (`saliency_r1.evaluation.judge.judge`) drawn: a line a data set, zero and the margin beside it."""
    scopes = {"overall": decision["overall"], **decision["datasets"]}
    axes = _axes(list(scopes), "difference of mean reward, challenger less champion")
    for place, scope in enumerate(scopes.values()):
        ends = [scope[end] for end in ("low", "high") if end in scope]  # of a single unit there are none
        colour = LINE if not ends else GOOD if ends[0] > 0 else BAD if ends[1] < 0 else LINE
        axes.plot(ends, [place] * len(ends), color=colour, linewidth=3)
        axes.plot(scope["difference"], place, "o", color=colour)
    axes.axvline(0, color="black", linewidth=1)
    axes.axvline(-decision["rules"]["margin"], color=BAD, linewidth=1, linestyle=":", label="margin of a data set")
    axes.legend(loc="best", fontsize=8)
    return _uri(axes)


def distances(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of `records/drift.json` drawn: a bar a measure, orange where it counts as moved."""
    known = sorted((row for row in rows if "distance" in row), key=lambda row: -row["distance"])[:MOST]
    names = [f"{row['data set']}: {row['measure']}" for row in known]
    axes = _axes(names, "largest difference of the two cumulative distributions (0 to 1)")
    colours = [BAD if row["moved"] else LINE for row in known]
    axes.barh(range(len(known)), [row["distance"] for row in known], color=colours)
    axes.set_xlim(0, 1)
    return _uri(axes)


def _axes(names: Sequence[str], label: str) -> Any:
    """Axes with a line for each name, the first one on top."""
    from matplotlib.figure import Figure

    axes = Figure((8, 1.1 + 0.32 * len(names)), layout="constrained").subplots()
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _uri(axes: Any) -> str:
    """The figure as the data URI of a PNG."""
    buffer = io.BytesIO()
    axes.figure.savefig(buffer, format="png", dpi=110)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
