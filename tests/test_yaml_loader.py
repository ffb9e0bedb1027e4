"""YAML as people, and people who mean harm, write it: the right value, or one line that names the place."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from saliency_r1.params import ParamsError, load_params
from saliency_r1.yaml_loader import DEEPEST, LARGEST, YamlError, load_yaml

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi")
)


def written(folder: Path, content: bytes | str) -> Path:
    path = folder / "mine.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("seed: 2024-13-45", "'2024-13-45' is no timestamp .line 1, column 7."),
        ("seed: !!int abc", "'abc' is no int"),
        ("seed: !!float ''", "'' is no float"),
        ("seed: !!bool perhaps", "'perhaps' is no bool"),
        ("seed: !!timestamp soon", "'soon' is no timestamp"),
        ("seed: !!binary \u00e9", "expected|is no binary|failed"),
        ("seed: !!python/object:os.system [x]", "could not determine a constructor"),
        ("2012: 1", "the key 2012 is read as int, keys are text: put it in quotes"),
        ("a: {null: 1}", "the key None is read as NoneType"),
        ("yes: 1", "the key True is read as bool"),
        ("? [a, b]\n: 1", "unhashable|is read as"),
        ("a: 1\na: 2", "the key a stands twice"),
        ("seed: 010", "010 is a number of base 8 in YAML 1.1 .line 1, column 7.; write it plainly"),
        ("seed: -1:30", "-1:30 is a number of base 60"),
        ("seed: 1:30.5", "1:30.5 is a number of base 60"),
        ("[" * 20_000, f"more than {DEEPEST} mappings or lists inside of one another"),
        ("a: " + "{b: " * 20_000, f"more than {DEEPEST} mappings or lists"),
        (BOMB, f"more than {LARGEST:,} values"),
        ("a: &a [*a]", "recursive|more than"),
        ("a: *nobody", "undefined alias"),
        (b"seed: \xff\xfe", "is not UTF-8 .byte 0xff at 6."),
        (b"seed: \x00", "not valid YAML"),
        ("a: [1, 2", "not valid YAML"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_file(content, message, tmp_path):
    path = written(tmp_path, content)
    with pytest.raises(YamlError, match=message) as refused:
        load_yaml(path)
    assert str(path) in str(refused.value)
    assert len(str(refused.value)) < 1000
    with pytest.raises(ParamsError):
        load_params(path)


def test_what_is_no_file_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe", tmp_path / "endless", tmp_path):
        with pytest.raises(YamlError, match="expected a file"):
            load_yaml(path)


def test_a_byte_order_mark_and_merges_and_aliases_are_fine(tmp_path):
    path = written(tmp_path, "\ufeffbase: &base {a: 1, b: 2}\nmine: {<<: *base, b: 3}\nlist: [*base, *base]\n")
    assert load_yaml(path) == {"base": {"a": 1, "b": 2}, "mine": {"a": 1, "b": 3}, "list": [{"a": 1, "b": 2}] * 2}


def test_digits_in_quotes_and_usual_numbers_are_what_they_were(tmp_path):
    path = written(tmp_path, "a: ['010', \"1:30\", 0, 0.10, -0, 1_000, 0x10, 08, a:1]")
    assert load_yaml(path) == {"a": ["010", "1:30", 0, 0.1, 0, 1000, 16, "08", "a:1"]}


def test_an_alias_bomb_in_params_costs_no_memory(tmp_path):
    """In a process that may not have it: the message would hold every repetition."""
    path = written(tmp_path, BOMB.replace("a: &a", "seed: &a", 1))
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))\n"
        "from saliency_r1.params import ParamsError, load_params\n"
        "try: load_params(sys.argv[1])\n"
        "except ParamsError as error: print(len(str(error)))"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) < 1000


@pytest.mark.parametrize(
    "value", ["[" + "[" * 20 + "]" * 20 + "]", "{" + ", ".join(f"k{i}: {i}" for i in range(999)) + "}"]
)
def test_a_wrong_value_is_shown_in_short(value, tmp_path):
    path = written(tmp_path, f"seed: {value}")
    with pytest.raises(ParamsError) as refused:
        load_params(path)
    assert max(map(len, str(refused.value).splitlines())) < 1000
