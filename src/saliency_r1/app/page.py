"""The page itself, in Gradio: pictures and questions at the left, one or two answers beside each other at the right."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from saliency_r1.app.archive import write_archive
from saliency_r1.app.loopback import Loopback
from saliency_r1.app.turns import Models, Turn
from saliency_r1.app.uploads import MOST_BYTES, Upload, read_uploads
from saliency_r1.app.view import complain, hint, show, style
from saliency_r1.cot import KINDS
from saliency_r1.prediction.predictor import PredictError
from saliency_r1.runtime.stage import describe_error, is_user_error

if TYPE_CHECKING:
    import gradio

TASKS = {
    "what stands out (sod)": "sod",
    "every object that stands out (sis)": "sis",
    "what a group shares (cosod)": "cosod",
}
_NOBODY = "nobody"
_KEEP = 3600  # seconds that uploads and archives are kept
_PAGE = """
.gradio-container { max-width: 1500px !important; margin: 0 auto !important; }
footer { display: none !important; }
#pictures .grid-container { grid-template-columns: repeat(2, minmax(0, 1fr)) !important; }
#pictures .grid-wrap { max-height: 230px; }
"""


class Column(NamedTuple):
    """The parts of the page that belong to one answer."""

    group: gradio.Column
    turn: gradio.State
    answer: gradio.HTML
    phrases: gradio.Textbox
    again: gradio.Button
    masks: gradio.DownloadButton


class Page:
    """What the buttons do: values of components in and out; errors are told where an answer would stand."""

    def __init__(self, models: Models, most: int, folder: Path) -> None:
        self.models = models
        self.most = most
        self.folder = folder

    def ask(self, files: list[Any] | None, task: str, model: str, other: str) -> list[Any]:
        """Both columns: the answer of each model, or what is wrong with the request in the first."""
        try:
            uploads = read_uploads([_path(one) for one in files or []], task, self.most)
        except Exception as error:
            return [*_wrong(error), *_nothing(False)]
        compared = other != _NOBODY
        first = self._answered(model, uploads, task)
        return [*first, *(self._answered(other, uploads, task) if compared else _nothing(False))]

    def reword(self, turn: Turn | None, phrases: str) -> list[Any]:
        """One column: its answer with other expressions, one a line; what is wrong with them where they cannot be."""
        try:
            if turn is None:
                raise PredictError("there is no answer yet: ask first")
            lines = phrases.split("\n")
            if turn.task == "cosod":
                most = len(turn.uploads)
                lines = [*lines[:most], *[""] * (most - len(lines)), *filter(str.strip, lines[most:])]
            return self._shown(self.models.reword(turn, lines))
        except Exception as error:
            return [_update(visible=True), turn, complain(_told(error)), phrases, _update(), _update()]

    def _answered(self, model: str, uploads: list[Upload], task: str) -> list[Any]:
        try:
            return self._shown(self.models.ask(model, uploads, task))
        except Exception as error:
            return _wrong(error)

    def _shown(self, turn: Turn) -> list[Any]:
        model = re.sub(r"[^\w.-]+", "-", turn.model)  # it may be a path, or owner/model@revision
        # Either may be as long as a file's name can be: 255 bytes.
        name, model = (text.encode()[:120].decode(errors="ignore") for text in (turn.uploads[0].name, model))
        self._forget()
        place = Path(tempfile.mkdtemp(prefix="masks-", dir=self.folder)) / f"{name}-{model}.zip"
        return [
            _update(visible=True),
            turn,
            show(turn),
            "\n".join(turn.phrases),
            _update(interactive=True),
            _update(value=str(write_archive(turn, place)), interactive=True),
        ]

    def _forget(self) -> None:
        """Delete archives of more than an hour ago: Gradio does so with its copies alone."""
        for old in self.folder.glob("masks-*"):
            if time.time() - old.stat().st_mtime > _KEEP:
                shutil.rmtree(old, ignore_errors=True)


def build(models: Models, most: int, folder: Path) -> gradio.Blocks:
    """The page; archives are written below `folder`. Raises `ModuleNotFoundError` where Gradio is not installed."""
    import gradio as gr

    page = Page(models, most, folder)
    with gr.Blocks(title="Saliency-R1", analytics_enabled=False, delete_cache=(_KEEP, _KEEP)) as blocks:
        gr.Markdown(
            "# Saliency-R1\nDrop a picture, ask what stands out, point at an expression to see its mask. "
            "Change the words and segment again."
        )
        with gr.Row():
            with gr.Column(scale=1, min_width=320):
                files = gr.Gallery(
                    label="Pictures", file_types=["image"], type="filepath",
                    interactive=True, columns=2, height=250, object_fit="contain", sources=["upload", "clipboard"],
                    elem_id="pictures", buttons=[],
                )  # fmt: skip
                gr.Markdown(f"One picture, or a group of up to {most}; at most {MOST_BYTES // 1_000_000} MB each.")
                asked = gr.Button("Ask", variant="primary", elem_id="ask")
                task = gr.Radio(list(TASKS.items()), value=next(iter(KINDS)), label="Question", elem_id="task")
                model = gr.Radio(models.names, value=models.names[0], label="Model", elem_id="model")
                other = gr.Radio([_NOBODY, *models.names], value=_NOBODY, label="Compare with", elem_id="other")
            with gr.Column(scale=3), gr.Row():
                columns = [_column(gr, "first", True), _column(gr, "second", False)]
        both = [part for column in columns for part in column]
        one_at_a_time: dict[str, Any] = {
            "concurrency_limit": 1,
            "concurrency_id": "models",
            "api_visibility": "private",
        }
        asked.click(
            page.ask,
            [files, task, model, other],
            both,
            show_progress_on=[one.answer for one in columns],
            **one_at_a_time,
        )
        for column in columns:
            column.again.click(
                page.reword,
                [column.turn, column.phrases],
                list(column),
                show_progress_on=column.answer,
                **one_at_a_time,
            )
    return blocks


def check_port(port: int) -> None:
    """Raise `PredictError` where the port cannot be had: before models are loaded, which may take minutes."""
    with socket.socket() as probe:
        if os.name == "posix":  # one that was in use a moment ago is free; elsewhere this would share one that is
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise PredictError(
                f"port {port} of 127.0.0.1 is taken ({error.strerror}): end what is there, or name another (--port)"
            ) from None


def serve(models: Models, most: int, port: int, browser: bool = False) -> None:
    """Show the page on loopback until it is interrupted or terminated; nothing of it is sent anywhere else.

    Uploads and archives go when it ends, unless `GRADIO_TEMP_DIR` keeps uploads elsewhere.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # its default action would leave pictures behind
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False"}
    os.environ |= {"NO_PROXY": "*", "no_proxy": "*"}  # Gradio asks itself whether it is up, and no proxy can tell it
    with tempfile.TemporaryDirectory(prefix="saliency-r1-app-") as folder:
        os.environ.setdefault("GRADIO_TEMP_DIR", str(Path(folder) / "uploads"))  # Gradio reads it when it is imported
        import gradio as gr
        from starlette.middleware import Middleware

        blocks = build(models, most, Path(folder))
        fonts: dict[str, Any] = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
        blocks.launch(
            server_name="127.0.0.1", server_port=port, share=False, inbrowser=browser, max_file_size=MOST_BYTES,
            css=_PAGE + style(), theme=gr.themes.Soft(**fonts), footer_links=[], enable_monitoring=False, quiet=True,
            ssr_mode=False, app_kwargs={"middleware": [Middleware(Loopback)]},
        )  # fmt: skip


def _column(gr: Any, name: str, visible: bool) -> Column:
    """The parts of one answer, in the order in which the buttons give their values."""
    with gr.Column(visible=visible, min_width=380, elem_id=name) as group:
        answer = gr.HTML(hint(), elem_id=f"{name}-answer", padding=False, min_height=60)
        phrases = gr.Textbox(
            label="Expressions, one a line", lines=2, max_lines=8, elem_id=f"{name}-phrases",
            info="For a group: one line a picture, an empty line where the shared object is not.",
        )  # fmt: skip
        with gr.Row():
            again = gr.Button("Segment again", interactive=False, elem_id=f"{name}-again")
            masks = gr.DownloadButton("Download masks", interactive=False, elem_id=f"{name}-masks")
    return Column(group, gr.State(), answer, phrases, again, masks)


def _wrong(error: Exception) -> list[Any]:
    return [
        _update(visible=True), None, complain(_told(error)), "", _update(interactive=False),
        _update(value=None, interactive=False),
    ]  # fmt: skip


def _nothing(visible: bool) -> list[Any]:
    return [
        _update(visible=visible), None, "", "", _update(interactive=False), _update(value=None, interactive=False),
    ]  # fmt: skip


def _told(error: Exception) -> str:
    """An error that a person can mend, in its words; any other is raised again, into the log of the server."""
    if not is_user_error(error):
        raise error
    return describe_error(error)


def _update(**values: Any) -> dict[str, Any]:
    """Gradio's way to change properties of a component (what `gradio.update` gives)."""
    return {"__type__": "update", **values}


def _path(item: Any) -> str:
    """The file of an item of the gallery, which may bring a caption."""
    return str(item[0] if isinstance(item, list | tuple) else item)
