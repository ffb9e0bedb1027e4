"""The language of the tiny base policy: its training texts and its byte-level BPE tokenizer.

Three kinds of text: descriptions of one image, descriptions of several images, and plain repetition of short texts
with markup in them. None of them judges what is salient and none answers in the tagged form: that is what SFT teaches.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer
from world.scenes import SceneObject, World

from saliency_r1.annotation import wording

SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Qwen2's own split: words with their leading space, single digits, runs of punctuation.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DESCRIBE_ONE = ("Describe the image.", "What is in the image?", "List the objects in the picture.")
DESCRIBE_MANY = ("Describe the images.", "What is in each image?", "List the objects in every picture.")
COMPARE = ("Compare the images.", "What do the images share?", "Which thing occurs in every picture?")
SHARED = ("All of them show the {}.", "What they share is the {}.", "Each of them has the {}.")
MISTAKEN = 0.25  # share of the names that are wrong in a comparison that begins with mistakes
REPEAT = ("Repeat the text:", "Copy this:", "Say again:")
WORDS = """
a about above absent after against all almost alone among an and another answer apart appear appears are area around as
at attention attracts away back backdrop background barely be because behind being below beside between blend blended
blends both bright but by called calm can catch catches clear clearly co-salient common compare compared compete contain
contains contrast contrasts could different dim disappears distinct distractor distractors dominates draw draws each
edge eight element else every everywhere expression expressions eye eyes fades few figure figures find first five for
foreground four frame from further group has have here hide hides i image images important in individual instance
instances is it item its itself large last leaves left less like list little look looking looks low main make many mask
masks member minor more most much name names near nearly next no not nothing notice object objects occurs of on once one
only or other others out over picture pictures place plain point present prominent quiet quite rather reason reasoning
region regions remain remains repeated repeats rest role same scene second see seen segment separately several share
shared shares shown shows side simple since single six size small so some stand standing stands strong stronger strongly
strongest subject subtle surroundings tag tagged tags take takes than that the their them then there these they thing
things think third this those though three to together too two under unlike up very viewer visible visually vivid want
weak weaker well what which while whole with within without you
Compare Every Find First From Here I In It Looking Nothing Of One Only Other Reason Segment So Tag The There These This
Two What
""".split()  # noqa: SIM905 - a long list of words reads better as text
MARKUP = ("rg", "ins", "think", "answer", "b", "i", "p")
PUNCTUATION = (".", ",", ":", ";", "!", "?", " -", " 1", " 2", " 3", " 4", " 5")


def description(groups: list[list[SceneObject]], rng: np.random.Generator) -> tuple[str, str]:
    """Question and answer about one or several images, given the objects of each."""
    variety = 0.0 if rng.random() < 0.5 else 0.5
    texts = [wording.describe([item.to_json() for item in objects], rng, variety) for objects in groups]
    if len(texts) == 1:
        return str(rng.choice(DESCRIBE_ONE)), f"There is {texts[0]}."
    answer = " ".join(f"Image {number} shows {text}." for number, text in enumerate(texts, start=1))
    return str(rng.choice(DESCRIBE_MANY)), answer


def comparison(
    groups: list[list[SceneObject]], shared: str, names: Sequence[str], rng: np.random.Generator
) -> tuple[str, str, str]:
    """Question, what each of several images shows, and what all of them show: the thing of the name `shared`.

    Half of the time some of what is said of the images bears another of `names`, as it does where a picture is misread,
    and is given without being learnt: the conclusion is to be drawn from most of the images, and from looking again.
    """
    mistaken = rng.random() < 0.5
    variety = 0.0 if rng.random() < 0.5 else 0.5
    sentences, called = [], ""
    for number, objects in enumerate(groups, start=1):
        said = []
        for item in map(SceneObject.to_json, objects):
            if item["name"] == shared:
                called = called or wording.noun(item, rng, variety)
                item |= {"name": called, "also": ()}
                if rng.random() < 0.5:
                    item["colour"] = ""
            if mistaken and rng.random() < MISTAKEN:
                item |= {"name": names[int(rng.integers(len(names)))], "also": ()}
            said.append(wording.article(wording.name(item, rng, variety)))
        sentences.append(f"Image {number} shows {wording.join(said)}.")
    shows, same = " ".join(sentences), str(rng.choice(SHARED)).format(called)
    return str(rng.choice(COMPARE)), shows if mistaken else "", same if mistaken else f"{shows} {same}"


def nouns(world: World) -> list[str]:
    """Every word for a thing, the families' among them."""
    kinds = [drawings[0][0].kind for drawings in world.cutouts.named.values()]
    return sorted({word for kind in kinds for word in (kind.name, *kind.also, kind.family)})


def repetition(rng: np.random.Generator, nouns: Sequence[str]) -> tuple[str, str]:
    """A text of random words, phrases and markup, to be repeated: every token gets an embedding that way."""
    vocabulary = [
        *WORDS,
        *nouns,
        *nouns,
        *wording.SYNONYMS,
        *(word for pair in wording.SYNONYMS.values() for word in pair),
    ]
    parts: list[str] = []
    for _ in range(int(rng.integers(2, 6))):
        opening = rng.choice(("", "the ", "The ", "There is ", "In "), p=(0.4, 0.3, 0.1, 0.1, 0.1))
        phrase = opening + " ".join(rng.choice(vocabulary, int(rng.integers(1, 4))))
        style = rng.random()
        if style < 0.5:
            tag = rng.choice(MARKUP)
            parts.append(f"<{tag}>{phrase}</{tag}>" + ("" if rng.random() < 0.6 else " "))
        else:
            parts.append(phrase + str(rng.choice(PUNCTUATION)) + " ")
    text = "".join(parts).strip()
    return f"{rng.choice(REPEAT)} {text}", text


def build_tokenizer(world: World, seed: int, size: int) -> Qwen2Tokenizer:
    """A byte-level BPE of at most `size` tokens with Qwen's split and special tokens, trained on the texts above."""
    rng = np.random.default_rng(seed)
    corpus = [f"system\nuser\nassistant\n{' '.join(WORDS)} " * 20]
    words = nouns(world)
    corpus += [f" {' '.join(words)} " * 20]
    corpus += ["".join(repetition(rng, words)) for _ in range(6000)]
    for _ in range(1500):
        scene = world.anything(rng)
        corpus.append(" ".join(description([list(scene.objects)] * int(rng.integers(1, 3)), rng)))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return Qwen2Tokenizer(
        tokenizer_object=tokenizer,
        bos_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=[token for token in SPECIAL_TOKENS if token not in ("<|im_end|>", "<|endoftext|>")],
    )
