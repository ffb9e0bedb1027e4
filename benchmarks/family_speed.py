"""Answers a second and memory of one published shape of each family of policies, with random weights.

    python benchmarks/family_speed.py
    python benchmarks/family_speed.py --layers 1 --prompts 2 --tokens 2 --families smolvlm      # on a CPU

Shapes are those of `families.yaml`; a network of other than the published number of parameters is refused. A prompt is
one picture in the smallest form that the family has for it (noise: no processor is asked) and `--text` tokens; greedy
answers, which random weights do not end, have `--tokens`; bfloat16; a first call with four tokens is left out.
"""

import argparse
import gc
import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from paper_size import SIZES

from saliency_r1.plan.shapes import read_config
from saliency_r1.policy.families import FAMILIES
from saliency_r1.runtime.files import write_json
from saliency_r1.yaml_loader import load_yaml

SHAPES = load_yaml(Path(__file__).with_name("families.yaml"))
IMAGE = 5  # the id of an image's token; texts are drawn from ids above
GRID = 32  # patches along a side of a picture, of the families that take any size: four are a token
TYPES = {"qwen2_5_vl": "Qwen2_5_VL", "qwen3_vl": "Qwen3VL", "smolvlm": "SmolVLM", "internvl": "InternVL",
         "gemma3": "Gemma3"}  # fmt: skip


def config_of(kind: str, layers: int | None) -> Any:
    """The configuration of a family's shape, with so many layers of text and of vision instead of all."""
    import transformers

    known = SHAPES[kind].get("config") or read_config(SIZES["3b"], [])
    known = {key: dict(value) if isinstance(value, dict) else value for key, value in known.items()}
    known.pop("model_type", None)
    text, vision = known["text_config"], known["vision_config"]
    if layers:
        text["num_hidden_layers"] = layers
        vision["depth" if "depth" in vision else "num_hidden_layers"] = layers
        if "deepstack_visual_indexes" in vision:
            vision["deepstack_visual_indexes"] = [0]
    tokens = {"video_token_id": IMAGE + 1, "vision_start_token_id": IMAGE + 2, "vision_end_token_id": IMAGE + 3}
    return getattr(transformers, f"{TYPES[kind]}Config")(
        **known, image_token_id=IMAGE, **(tokens if kind.startswith("qwen") else {})
    )


def picture(kind: str, vision: Any) -> tuple[int, dict[str, Any]]:
    """How many tokens a picture has, and the tensors it is passed as."""
    import torch

    if kind.startswith("qwen"):
        patches = torch.randn(GRID**2, 3 * vision.temporal_patch_size * vision.patch_size**2)
        return GRID**2 // 4, {"pixel_values": patches, "image_grid_thw": torch.tensor([[1, GRID, GRID]])}
    pixels = torch.randn(1, 3, *_square(vision.image_size))
    if kind == "smolvlm":
        return 81, {"pixel_values": pixels[None]}  # rows of tiles, of which there is one
    return 256, {"pixel_values": pixels}


def _square(side: Any) -> tuple[int, int]:
    return tuple(side) if isinstance(side, list | tuple) else (side, side)


def build(kind: str, layers: int | None, device: Any) -> Any:
    """A policy of a family's shape, whose tokenizer knows two tokens."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models

    from saliency_r1.policy import Policy

    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = getattr(transformers, f"{TYPES[kind]}ForConditionalGeneration")(config_of(kind, layers))
    torch.set_default_dtype(torch.float32)
    found, expected = sum(parameter.numel() for parameter in model.parameters()), SHAPES[kind]["parameters"]
    if not layers and found != expected:
        raise ValueError(f"benchmarks/families.yaml: {kind} has {found} parameters, the published one {expected}")
    family = FAMILIES[kind]
    words = Tokenizer(models.WordLevel({family.end: 0, family.pad: 1}, unk_token=family.pad))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words)
    return Policy(model.eval().requires_grad_(False), SimpleNamespace(tokenizer=tokenizer), device)


def prompts(kind: str, policy: Any, count: int, text: int) -> list[Any]:
    """So many prompts of one picture and random text."""
    import torch

    from saliency_r1.policy import Prompt

    made = []
    for _ in range(count):
        tokens, inputs = picture(kind, policy.model.config.vision_config)
        inputs["pixel_values"] = inputs["pixel_values"].to(torch.bfloat16)
        words = torch.randint(100, policy.model.config.get_text_config().vocab_size, (text,))
        made.append(Prompt(torch.cat([torch.full((tokens,), IMAGE), words]), inputs))
    return made


def measure(arguments: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """One family after the other."""
    import torch

    from saliency_r1.training.diagnostics import peak_memory

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for kind in arguments.families:
        torch.manual_seed(0)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        policy = build(kind, arguments.layers, device)
        asked = prompts(kind, policy, arguments.prompts, arguments.text)
        policy.generate(asked, 4)
        start = time.perf_counter()
        answers = policy.generate(asked, arguments.tokens)
        seconds = time.perf_counter() - start
        said = sum(len(answer.ids) for answer in answers)
        yield SHAPES[kind]["name"], {
            "parameters": sum(parameter.numel() for parameter in policy.model.parameters()),
            "prompt_tokens": len(asked[0].input_ids), "seconds": seconds, "prompts_per_second": len(asked) / seconds,
            "tokens_per_second": said / seconds, "peak_gb": peak_memory(device),
        }  # fmt: skip
        del policy, asked, answers
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def options_of(words: list[str] | None = None) -> argparse.Namespace:
    """The command line, or the words of one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", choices=SHAPES, nargs="+", default=list(SHAPES))
    parser.add_argument("--layers", type=int, help="of text and vision, instead of all")
    parser.add_argument("--prompts", type=int, default=8, help="answered at once")
    parser.add_argument("--text", type=int, default=64, help="tokens of a prompt beside its picture's")
    parser.add_argument("--tokens", type=int, default=64, help="of an answer")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/family-speed.json"))
    return parser.parse_args(words)


def main() -> None:
    """Measure and print one JSON line a family."""
    arguments = options_of()
    found = {}
    for name, row in measure(arguments):
        found[name] = row
        print(json.dumps({"family": name} | row), flush=True)
    write_json(arguments.out, {key: value for key, value in vars(arguments).items() if key != "out"} | found)


if __name__ == "__main__":
    main()
