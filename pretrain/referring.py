"""What the tiny segmenter is trained to follow: rendered scenes, expressions about them, the masks they mean."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import sentencepiece
from PIL import Image
from render import Scene, SceneObject, any_scene, kinds, sis_scene, sod_scene

from saliency_r1.annotation import wording

PIECES = 400
VARIETY = 0.15
HELD_OUT = 1_000_000  # seeds from here on are never trained on


def train_vocabulary(path: Path) -> None:
    """A sentencepiece model over generated phrases, unknown, begin and end first, as in BEiT-3's own."""
    rng = np.random.default_rng(HELD_OUT - 1)
    lines = [phrase for _ in range(3000) for phrase, _ in expressions(any_scene(rng).objects, rng)]
    letters = "".join(chr(code) for code in range(33, 127))
    with tempfile.TemporaryDirectory() as folder:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_prefix=f"{folder}/model",
            model_type="bpe",
            vocab_size=PIECES,
            character_coverage=1.0,
            required_chars=letters.lower(),
            normalization_rule_name="nmt_nfkc_cf",
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=-1,
            minloglevel=2,
        )
        path.write_bytes(Path(f"{folder}/model.model").read_bytes())


def random_scene(rng: np.random.Generator, unseen: bool = False) -> Scene:
    """A scene of any of the kinds the segmenter will meet; ``unseen``: with a held-out colour and shape."""
    if unseen:
        return (sod_scene, sis_scene)[rng.integers(2)](rng, True)
    return (any_scene, any_scene, sod_scene, sis_scene)[rng.integers(4)](rng)


def compressed(scene: Scene, quality: int) -> Scene:
    """The scene behind a round of JPEG, as the data sets store it."""
    buffer = io.BytesIO()
    scene.image.save(buffer, "JPEG", quality=quality)
    return replace(scene, image=Image.open(buffer).convert("RGB"))


def absent_kind(objects: Sequence[SceneObject], rng: np.random.Generator) -> tuple[str, str]:
    """A combination that is not in the scene; half of the time with the colour or the shape of an object there."""
    there = {item.kind for item in objects}
    options = [kind for kind in kinds() if kind not in there]
    if rng.random() < 0.5:
        near = [k for k in options if any(k[0] == c or k[1] == s for c, s in there)]
        options = near or options
    return options[rng.integers(len(options))]


def partial_phrases(objects: Sequence[SceneObject], rng: np.random.Generator, variety: float) -> list[tuple[str, int]]:
    """Shorter expressions that still point at one object only: by shape, by colour, by place."""
    found = []
    for item in objects:
        others = [other for other in objects if other is not item]
        if all(item.shape != other.shape for other in others):
            found.append((f"the {wording.word(item.shape, rng, variety)}", item.id))
        if all(item.colour != other.colour for other in others):
            noun = ("object", "shape")[rng.integers(2)]
            found.append((f"the {wording.word(item.colour, rng, variety)} {noun}", item.id))
        found.append((f"the object {wording.at(item.place, rng, variety)}", item.id))
    return found


def expressions(
    objects: Sequence[SceneObject], rng: np.random.Generator, variety: float = VARIETY, short_share: float = 0.6
) -> list[tuple[str, tuple[int, ...]]]:
    """Expressions with the ids they mean: every object, several together, now and then a short and an absent one."""
    rows = {item.id: asdict(item) for item in objects}
    phrases: list[tuple[str, tuple[int, ...]]] = [
        (wording.referring_phrase(row, rng, variety), (number,)) for number, row in rows.items()
    ]
    if len(objects) > 1:
        several = rng.choice(list(rows), min(len(rows), 2 + (rng.random() < 0.2)), replace=False)
        names = [wording.referring_phrase(rows[number], rng, variety) for number in several]
        phrases.append((wording.join(names), tuple(int(number) for number in several)))
    if rng.random() < short_share:
        short = partial_phrases(objects, rng, variety)
        text, number = short[rng.integers(len(short))]
        phrases.append((text, (number,)))
    if rng.random() < 0.6:
        colour, shape = absent_kind(objects, rng)
        ghost = {**rows[int(rng.choice(list(rows)))], "colour": colour, "shape": shape}
        phrases.append((wording.referring_phrase(ghost, rng, variety), ()))
    return [(text if rng.random() > 0.1 else text.removeprefix("the "), ids) for text, ids in phrases]


def targets(scene: Scene, pairs: Sequence[tuple[str, tuple[int, ...]]]) -> np.ndarray:
    """What every expression means: the united masks of its objects, bool n x H x W; of none: empty."""
    width, height = scene.image.size
    masks = np.zeros((len(pairs), height, width), dtype=bool)
    for mask, (_, ids) in zip(masks, pairs):
        for number in ids:
            mask |= scene.masks[number]
    return masks
