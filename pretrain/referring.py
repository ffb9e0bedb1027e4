"""What the tiny segmenter is trained to follow: rendered scenes, expressions about them, the masks they mean."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import sentencepiece
from world.cutouts import Kind
from world.scenes import Scene, SceneObject, World, stored

from saliency_r1.annotation import wording
from saliency_r1.annotation.attributes import NAMED_COLOURS

PIECES = 500
VARIETY = 0.15
HELD_OUT = 1_000_000  # first part of the seed of whatever is held out
Pairs = list[tuple[str, tuple[int, ...]]]


@dataclass(frozen=True)
class Claim:
    """What an expression says of a thing; it means every thing of the picture of which all of that is true."""

    item: SceneObject  # with the name and the colour that are said; no colour: nothing is said of it
    detail: bool  # whether size and faintness are said
    place: bool

    def text(self, rng: np.random.Generator, variety: float) -> str:
        """The expression, with synonyms in a share `variety` of the words."""
        row = asdict(self.item)
        phrase = f"the {wording.name(row, rng, variety, ('tone', 'size') if self.detail else ())}"
        return f"{phrase} {wording.at(self.item.place, rng, variety)}" if self.place else phrase

    def holds(self, other: SceneObject) -> bool:
        """Whether all that is said is true of a thing."""
        said = self.item
        return (
            said.name in (other.name, other.family, "object")
            and said.colour in (other.colour, "")
            and (not self.detail or said.size == other.size)
            and (not self.detail or said.tone == "vivid" or other.tone == "faint")
            and (not self.place or said.place == other.place)
        )


def train_vocabulary(world: World, path: Path, size: int = PIECES) -> None:
    """A sentencepiece model over generated phrases, unknown, begin and end first, as in BEiT-3's own."""
    rng = np.random.default_rng(HELD_OUT - 1)
    kinds = all_kinds(world)
    lines = [phrase for _ in range(2000) for phrase, _ in expressions(world.anything(rng).objects, kinds, rng, 0.3)]
    letters = "".join(chr(code) for code in range(33, 127))
    with tempfile.TemporaryDirectory() as folder:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_prefix=f"{folder}/model",
            model_type="bpe",
            vocab_size=size,
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


def all_kinds(world: World) -> list[Kind]:
    """The categories of training."""
    return [drawings[0][0].kind for drawings in world.cutouts.named.values()]


def random_scene(world: World, rng: np.random.Generator, unseen: bool = False) -> Scene:
    """A scene of any of the kinds the segmenter will meet, as it is stored; ``unseen``: with a held-out look."""
    if unseen:
        scene = (world.sod, world.sis)[rng.integers(2)](rng, True)
    else:
        scene = (world.anything, world.anything, world.anything, world.sod, world.sis)[rng.integers(5)](rng)
    return replace(scene, image=stored(scene.image, int(rng.integers(75, 98))))


def claim(item: SceneObject, rng: np.random.Generator, short_share: float) -> Claim:
    """One of the ways in which people point at a thing, by its name and colour, or, in a share, by less than that."""
    if rng.random() < short_share:
        style = rng.random()
        if style < 0.35:
            item = replace(item, colour="")
        else:
            name = item.family if style < 0.65 else "object"
            item = replace(item, name=name, also=(), colour=item.colour if rng.random() < 0.6 else "")
    bare = item.name == "object" and not item.colour
    return Claim(item, bool(rng.random() < 0.25), bool(rng.random() < (0.9 if bare else 0.4)))


def ghost(objects: Sequence[SceneObject], kinds: Sequence[Kind], rng: np.random.Generator) -> Claim | None:
    """An expression that nothing in the scene answers to: a thing of it with another name, or another colour."""
    item = objects[int(rng.integers(len(objects)))]
    for _ in range(20):
        if item.colour and rng.random() < 0.35:
            colours = [colour for colour in NAMED_COLOURS if colour != item.colour]
            said = Claim(replace(item, colour=colours[rng.integers(len(colours))]), False, bool(rng.random() < 0.3))
        else:
            kind = kinds[int(rng.integers(len(kinds)))]
            colour = item.colour if rng.random() < 0.6 else ""
            other = replace(item, name=kind.name, also=kind.also, family=kind.family, colour=colour)
            said = Claim(other, bool(rng.random() < 0.2), bool(rng.random() < 0.3))
        if not any(said.holds(there) for there in objects):
            return said
    return None


def expressions(
    objects: Sequence[SceneObject],
    kinds: Sequence[Kind],
    rng: np.random.Generator,
    variety: float = VARIETY,
    short_share: float = 0.35,
) -> Pairs:
    """Expressions with the ids they mean: of every object, several together, now and then of an absent one."""
    claims = [claim(item, rng, short_share) for item in objects]
    pairs: Pairs = [(said.text(rng, variety), _meant([said], objects)) for said in claims]
    if len(objects) > 1:
        chosen = rng.choice(len(objects), min(len(objects), 2 + int(rng.random() < 0.2)), replace=False)
        several = [claims[index] for index in chosen]
        pairs.append((wording.join([said.text(rng, variety) for said in several]), _meant(several, objects)))
    if rng.random() < 0.6 and (absent := ghost(objects, kinds, rng)):
        pairs.append((absent.text(rng, variety), ()))
    return [(text if rng.random() > 0.1 else text.removeprefix("the "), ids) for text, ids in pairs]


def _meant(claims: Sequence[Claim], objects: Sequence[SceneObject]) -> tuple[int, ...]:
    return tuple(item.id for item in objects if any(said.holds(item) for said in claims))


def targets(scene: Scene, pairs: Sequence[tuple[str, tuple[int, ...]]]) -> np.ndarray:
    """What every expression means: the united masks of its objects, bool n x H x W; of none: empty."""
    width, height = scene.image.size
    masks = np.zeros((len(pairs), height, width), dtype=bool)
    for mask, (_, ids) in zip(masks, pairs):
        for number in ids:
            mask |= scene.masks[number]
    return masks
