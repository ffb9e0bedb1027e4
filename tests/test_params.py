"""Parameters: the loader's floats, the messages, and every params file the repository ships."""

import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from saliency_r1.cli.app import app
from saliency_r1.params import ParamsError, describe_params, load_params, parse_params
from saliency_r1.yaml_loader import load_yaml

ROOT = Path(__file__).parents[1]
FILES = [ROOT / "params.yaml", *sorted((ROOT / "profiles").glob("*.yaml"))]


def changed(key: str, value: Any) -> dict[str, Any]:
    """The default parameters with one value replaced (or added)."""
    content = load_yaml(ROOT / "params.yaml")
    *parents, last = key.split(".")
    section = content
    for parent in parents:
        section = section[parent]
    section[last] = value
    return content


def without(key: str) -> dict[str, Any]:
    content = changed(key, None)
    *parents, last = key.split(".")
    section = content
    for parent in parents:
        section = section[parent]
    del section[last]
    return content


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_shipped_file_is_valid(path: Path) -> None:
    assert load_params(path).seed >= 0


def test_the_profiles_are_there() -> None:
    assert {path.name for path in FILES} == {"params.yaml", "smoke.yaml", "paper-3b.yaml", "paper-7b.yaml"}


@pytest.mark.parametrize("text", ["1e-05", "1e5", "1.5e3", "-2E-3", "+1e+2", "1.0e-5", "0.00001"])
def test_every_way_to_write_a_float_is_a_float(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"x: {text}")
    assert load_yaml(path) == {"x": float(text)}
    assert isinstance(load_yaml(path)["x"], float)


@pytest.mark.parametrize("text", ["abc1e5", "1e", "e5", "'1e-05'", "1e5x"])
def test_what_only_looks_like_a_float_stays_text(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"x: {text}")
    assert isinstance(load_yaml(path)["x"], str)


def test_whole_numbers_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("x: 12")
    assert isinstance(load_yaml(path)["x"], int)


def test_a_whole_number_may_stand_for_a_float() -> None:
    learning_rate = parse_params(changed("cgpo.lr", 1)).cgpo.lr
    assert learning_rate == 1.0
    assert isinstance(learning_rate, float)


ASKED = {"name": "other", "model": "folder", "shots": 0, "endpoint": None}
REFUSED = [
    ("cgpo.lr", "fast", "cgpo.lr = 'fast', expected float"),
    ("cgpo.lr", True, "cgpo.lr = True, expected float"),
    ("seed", 1 << 32, "seed = 4294967296, expected int: input should be less than 4294967296"),
    ("launch", "", "launch: '', expected what stands in front of a script"),
    ("launch", "python '", 'launch: "python \'" is no command line'),
    ("launch", "python\nrm", "launch: 'python\\nrm', expected what stands in front of a script"),
    ("launch", "python #", "launch: 'python #', expected one command: # is the shell's"),
    ("launch", "python 'a' ; b", "launch: \"python 'a' ; b\", expected one command: ; is the shell's"),
    *(("launch", f"python {sign} b", f"launch: 'python {sign} b', expected one command: {sign}") for sign in "&|<>"),
    ("cgpo.lr", 0.0, "cgpo.lr = 0.0, expected float: input should be greater than 0"),
    ("cgpo.lr", float("nan"), "cgpo.lr = nan, expected float"),
    ("cgpo.updates", 1.5, "cgpo.updates = 1.5, expected int"),
    ("cgpo.updates", True, "cgpo.updates = True, expected int"),
    ("cgpo.updates", "10", "cgpo.updates = '10', expected int"),
    ("cgpo.isr", 3, "cgpo.isr = 3, expected a section with every, weight, batch_size, moments"),
    ("cgpo.algorithm", "ppo", "cgpo.algorithm = 'ppo', expected one of 'cgpo',"),
    ("download.limit", "all", "download.limit = 'all', expected int or null"),
    ("download.datasets", "ecssd", "download.datasets = 'ecssd', expected list of str"),
    ("masks.models", ["base", "big"], "masks.models.1 = 'big', expected one of 'base', 'sft', 'cgpo'"),
    ("masks.models", ["base", "base"], "masks.models: two models are called 'base'"),
    ("masks.models", [ASKED | {"name": "sft"}], "masks.models.0.name: 'sft' is the name of a model that is trained"),
    ("masks.models", ["cgpo", ASKED | {"shots": "3"}], "masks.models.1.shots = '3', expected int"),
    ("masks.models", [ASKED | {"shot": 3}], "unknown parameter masks.models.0.shot = 3; did you mean shots?"),
    ("annotate.endpoint.max_cost", 1.0, "annotate.endpoint: max_cost needs prices"),
    ("annotate.endpoint.prices", [1.0], "annotate.endpoint.prices = (1.0,), expected list of float or null"),
    ("cgpo.lrr", 1, "unknown parameter cgpo.lrr = 1; did you mean lr?"),
    ("sgpo", {}, "unknown parameter sgpo = {}; did you mean cgpo?"),
    ("sft.lora.rank", 1, "unknown parameter sft.lora.rank = 1; known here: r, alpha"),
    ("sft.lora.r", 1.5, "sft.lora.r = 1.5, expected int"),
    ("zebra", 1, "unknown parameter zebra = 1; known here: seed, launch, runtime"),
    ("rewards.sod.iou", 0.9, "rewards.sod: the weights"),
    ("policy.max_pixels", 1, "policy: min_pixels"),
    ("download.policy", "", "download.policy = '', expected str: string should have at least 1 character"),
    ("download.mirror", "", "download.mirror = '', expected str or null: string should have at least 1 character"),
    (
        "sft.lora.targets",
        "(q|k",
        "sft.lora.targets: '(q|k', expected a regular expression over module names: missing )",
    ),
    ("sft.lora.targets", "(?i)q_proj", "sft.lora.targets: '(?i)q_proj', expected a regular expression"),
    ("cgpo.algorithm", "grpo", "cgpo: group_size 1 with batch_size 32: grpo needs groups of two or more that divide"),
    ("cgpo.group_size", 4, "cgpo: group_size 4: cgpo samples one response a prompt; set 1"),
]


@pytest.mark.parametrize(("key", "value", "message"), REFUSED)
def test_a_refusal_names_key_value_and_type(key: str, value: Any, message: str) -> None:
    with pytest.raises(ParamsError, match=re.escape(f"my.yaml: {message}")):
        parse_params(changed(key, value), "my.yaml")


@pytest.mark.parametrize(
    "launch",
    ["env A='x;y' python", 'env "A=a > \\" b" python', r"env A=\& python", "env A=a#b python", "torchrun --x=$(nproc)"],
)
def test_signs_that_the_shell_does_not_act_on_may_stand_in_front_of_a_script(launch: str) -> None:
    assert parse_params(changed("launch", launch)).launch == launch


def test_an_algorithm_gets_the_batch_that_it_compares() -> None:
    content = changed("cgpo.batch_size", 1)
    assert parse_params(content).cgpo.batch_size == 1, "plain r - c compares nothing"
    content["cgpo"]["normalise"] = "batch"
    with pytest.raises(ParamsError, match="cgpo: batch_size 1: cgpo compares the responses of an update"):
        parse_params(content)
    content["cgpo"] |= {"algorithm": "rloo", "batch_size": 32, "group_size": 3}
    with pytest.raises(ParamsError, match="cgpo: group_size 3 with batch_size 32: rloo needs groups"):
        parse_params(content)
    content["cgpo"] |= {"algorithm": "reinforce_pp"}
    with pytest.raises(ParamsError, match="cgpo: group_size 3: reinforce_pp samples one response a prompt; set 1"):
        parse_params(content)
    content["cgpo"] |= {"algorithm": "rloo", "group_size": 8}
    assert parse_params(content).cgpo.group_size == 8


def test_a_missing_key_is_named_with_its_type() -> None:
    with pytest.raises(ParamsError, match=re.escape("missing parameter cgpo.isr.every, expected int")):
        parse_params(without("cgpo.isr.every"))


def test_all_that_is_wrong_is_said_at_once() -> None:
    content = changed("cgpo.lr", "x")
    content["seed"] = "y"
    with pytest.raises(ParamsError, match=r"seed = 'y'[^$]*cgpo\.lr = 'x'"):
        parse_params(content)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "not valid YAML"),
        ("- 1\n- 2", "expected a mapping of sections, found list"),
        ("", "expected a mapping of sections, found NoneType"),
        ("seed: 1\nseed: 2", "the key seed stands twice"),
    ],
)
def test_a_file_that_is_no_params_file(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ParamsError, match=message):
        load_params(path)


def test_sections_cannot_be_changed() -> None:
    params = load_params(ROOT / "params.yaml")
    with pytest.raises(ValueError, match="frozen"):
        params.cgpo.lr = 1.0  # type: ignore[misc]
    assert hash(params) == hash(load_params(ROOT / "params.yaml"))


def test_every_key_is_described() -> None:
    described = describe_params()
    assert described["cgpo.lr"] == "float"
    assert described["download.datasets"] == "list of str"
    assert described["masks.split"] == "one of 'train', 'val', 'test'"


def test_the_command_line_checks_a_file(tmp_path: Path) -> None:
    good = CliRunner().invoke(app, ["params", "check", str(ROOT / "params.yaml")])
    assert good.exit_code == 0, good.output
    path = tmp_path / "bad.yaml"
    path.write_text("seed: x")
    bad = CliRunner().invoke(app, ["params", "check", str(path)])
    assert bad.exit_code == 1
    assert "seed = 'x', expected int" in bad.output
