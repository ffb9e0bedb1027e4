"""The masks of an answer as one zip file."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from saliency_r1.app.turns import Turn
from saliency_r1.metrics.saliency import to_levels
from saliency_r1.runtime.files import replacing


def write_archive(turn: Turn, path: Path) -> Path:
    """Write the masks of an answer and what was said.

        maps/<picture>.png              SOD and CoSOD: the saliency map, 8 bits; SIS: instance ids, 16 bits
        expressions/<picture>-<n>.png   the mask of the n-th expression, 0 and 255
        response.json                   model, task, response and how often it was asked for; expressions, scores

    Returns `path`.
    """
    with replacing(path) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as archive:
        for index, upload in enumerate(turn.uploads):
            values = turn.answer.ids if turn.task == "sis" else to_levels(turn.answer.maps[index])
            archive.writestr(f"maps/{upload.name}.png", _png(Image.fromarray(values)))
        for number, (item, segment) in enumerate(zip(turn.answer.expressions, turn.segments, strict=True), 1):
            mask = Image.fromarray(segment.mask.astype(np.uint8) * 255)
            archive.writestr(f"expressions/{turn.uploads[item.image].name}-{number}.png", _png(mask))
        archive.writestr("response.json", json.dumps(_said(turn), ensure_ascii=False, indent=2))
    return path


def _said(turn: Turn) -> dict[str, object]:
    return {
        "model": turn.model,
        "task": turn.task,
        "edited": turn.edited,
        "response": turn.answer.text,
        "errors": list(turn.answer.errors),
        "attempts": turn.answer.attempts,
        "expressions": [
            {"image": turn.uploads[item.image].name, "text": item.text, "score": round(float(segment.score), 6)}
            for item, segment in zip(turn.answer.expressions, turn.segments, strict=True)
        ],
    }


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
