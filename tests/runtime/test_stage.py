"""What every stage shares: exit codes, messages, signals, progress, reproducible torch."""

import os
import re
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from processes import alive

from saliency_r1.params import load_params
from saliency_r1.runtime import processes
from saliency_r1.runtime.stage import StageError, describe_error, prepare_torch, progress

ROOT = Path(__file__).parents[2]
HEAD = "import os, sys, time\nfrom pathlib import Path\nfrom saliency_r1.runtime.stage import run_stage\n"


def script(folder: Path, body: str) -> list[str]:
    """A stage script with this body of `main`, and the command that runs it."""
    path = folder / "thing.py"
    path.write_text(HEAD + f"def main(params):\n    {body}\nrun_stage(main, {str(ROOT / 'params.yaml')!r})\n")
    return [sys.executable, str(path)]


def run(folder: Path, body: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | variables
    return subprocess.run(
        script(folder, body), cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False
    )


def test_a_stage_gets_its_parameters_and_ends_with_zero(tmp_path: Path) -> None:
    ended = run(tmp_path, "print(params.cgpo.algorithm)")
    assert (ended.returncode, ended.stdout) == (0, "cgpo\n")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise __import__('saliency_r1.quality', fromlist=['x']).GateError('too bad')", "thing stopped: too bad"),
        ("open('/nowhere/x')", "thing stopped: no such file or directory: /nowhere/x"),
        ("raise OSError(28, 'No space left on device', 'out/x.png')", "no space left on device: out/x.png"),
        ("raise RuntimeError('table: No space left on device')", "thing stopped: table: No space left on device"),
    ],
)
def test_an_error_a_person_can_mend_is_one_paragraph(body: str, message: str, tmp_path: Path) -> None:
    ended = run(tmp_path, body)
    assert ended.returncode == 1
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "dvc checkout" not in ended.stderr
    assert "dvc checkout" in run(tmp_path, body, DVC_STAGE="thing").stderr


def test_what_may_go_well_later_has_an_exit_code_of_its_own(tmp_path: Path) -> None:
    ended = run(tmp_path, "raise __import__('saliency_r1.data.errors', fromlist=['x']).Unreachable('no answer')")
    assert ended.returncode == 75
    assert "thing stopped: no answer" in ended.stderr


@pytest.mark.parametrize("body", ["raise ValueError('shapes')", "1 / 0", "raise AssertionError"])
def test_a_defect_keeps_its_traceback(body: str, tmp_path: Path) -> None:
    ended = run(tmp_path, body)
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr


def test_a_wrong_params_file_ends_before_the_stage(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text() + "\ncgpp: 1\n")
    command = script(tmp_path, "print('worked')")
    path = Path(command[1])
    path.write_text(path.read_text().replace(str(ROOT / "params.yaml"), "params.yaml"))
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "unknown parameter cgpp = 1; did you mean cgpo?" in ended.stderr
    assert "worked" not in ended.stdout


def test_any_name_can_be_printed_in_any_locale(tmp_path: Path) -> None:
    ended = run(tmp_path, "print('Gänse \\u732b')", LC_ALL="C", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert ended.stdout == "Gänse 猫\n"


def test_a_terminated_stage_cleans_up(tmp_path: Path) -> None:
    body = """
    try:
        Path('started').touch(); time.sleep(60)
    finally:
        Path('cleaned').touch()"""
    with subprocess.Popen(script(tmp_path, body), cwd=tmp_path) as process:
        wait_for(tmp_path / "started")
        process.terminate()
        assert process.wait(10) == 128 + signal.SIGTERM
    assert (tmp_path / "cleaned").exists()


SLEEPER = """
    try:
        Path('started').write_text(str(os.getpid())); time.sleep(60)
    finally:
        Path('cleaned').touch()"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
@pytest.mark.parametrize("program", ["DVC_STAGE", "TORCHELASTIC_RUN_ID"])
def test_a_stage_dies_with_the_killed_program_that_started_it(program: str, tmp_path: Path) -> None:
    child = script(tmp_path, SLEEPER)
    code = f"import subprocess; subprocess.run({child!r})"
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {program: "thing"})
    wait_for(tmp_path / "started")
    parent.kill()
    parent.wait()
    wait_for(tmp_path / "cleaned")


def test_a_stage_that_a_person_has_left_behind_goes_on(tmp_path: Path) -> None:
    command = " ".join(["nohup", *script(tmp_path, SLEEPER), "> /dev/null 2>&1 & sleep 1"])
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)  # the shell ends when the stage has begun
    wait_for(tmp_path / "started")
    pid = int((tmp_path / "started").read_text())
    time.sleep(1)
    assert alive(pid)
    assert not (tmp_path / "cleaned").exists()
    os.kill(pid, signal.SIGTERM)
    wait_for(tmp_path / "cleaned")


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_who_comes_too_late_to_die_with_its_parent_dies_at_once() -> None:
    code = "from saliency_r1.runtime.parent import die_with_parent; die_with_parent(1 << 30); print('alive')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (128 + signal.SIGTERM, "")


def wait_for(path: Path, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} never came"
        time.sleep(0.05)


def test_an_error_of_the_system_is_described_with_its_file() -> None:
    assert describe_error(PermissionError(13, "Permission denied", "a.png")) == "permission denied: a.png"
    assert describe_error(OSError(18, "Cross-device link", "a", None, "b")) == "cross-device link: a -> b"
    assert describe_error(OSError("no model here")) == "no model here"


def test_processes_wait_for_one_another_longer_than_their_shares_of_hours_differ(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """NCCL alone gives up after ten minutes, and the stage with it."""
    import accelerate
    import torch

    asked = {}
    meeting = SimpleNamespace(device=torch.device("cpu"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(accelerate, "PartialState", lambda **options: asked.update(options) or meeting)
    assert processes.join(torch.device("cpu")) == torch.device("cpu")
    assert asked["timeout"] >= timedelta(hours=12)


def test_progress_writes_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress("abc", label="letters")) == ["a", "b", "c"]
    assert re.fullmatch(r"letters 3 done, \d+\.\d s\n", capsys.readouterr().out)


def test_progress_shows_a_bar_on_a_terminal(tmp_path: Path) -> None:
    import pty

    screen, terminal = pty.openpty()
    code = "from saliency_r1.runtime.stage import progress\nfor _ in progress(range(3), label='letters'): pass"
    subprocess.run([sys.executable, "-c", code], stdout=terminal, check=True, env=os.environ | {"TERM": "xterm"})
    os.close(terminal)
    assert "━" in os.read(screen, 100_000).decode()


def test_equal_seeds_give_equal_numbers() -> None:
    import torch

    runtime = load_params(ROOT / "params.yaml").runtime
    draws = []
    for seed in (1, 1, 2):
        device, dtype = prepare_torch(runtime, seed)
        draws.append(torch.rand(3, device=device, dtype=dtype))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.get_num_threads() == runtime.threads
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("has", "told"),
    [
        ({"architecture": "x86_64", "avx2": True}, True),
        ({"architecture": "x86_64", "avx512_bf16": True}, False),
        ({"architecture": "aarch64"}, False),
    ],
)
def test_a_cpu_that_imitates_bfloat16_is_told_of(
    has: dict[str, object], told: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    runtime = load_params(ROOT / "params.yaml").runtime.model_copy(update={"device": "cpu", "dtype": "bfloat16"})
    assert prepare_torch(runtime, 1)[1] == torch.bfloat16
    torch.use_deterministic_algorithms(False)
    assert ("float32 is faster" in capsys.readouterr().err) is told


@pytest.mark.parametrize("launch", [[], ["-m", "saliency_r1.runtime.launch", "--nproc-per-node", "2"]])
def test_ctrl_c_is_one_line_however_many_processes_there_are(launch: list[str], tmp_path: Path) -> None:
    python, *path = script(tmp_path, "os.write(1, b'on\\n'); time.sleep(60)")
    with subprocess.Popen(
        [python, *launch, *path], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for _ in range(2 if launch else 1):
            assert process.stdout.readline() == "on\n"
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said.strip()) == (130, "thing interrupted")


def test_ctrl_c_while_a_stage_is_loaded_is_one_line_too() -> None:
    code = "import sys; sys.argv = ['stages/sft.py']; sys.path.insert(0, 'stages'); import own_tree; "
    code += "raise KeyboardInterrupt"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.stderr == "sft interrupted\n"
    assert ended.returncode == -signal.SIGINT, "as Python ends on it, which a shell calls 130"
    ended = subprocess.run([sys.executable, "-c", code.replace("KeyboardInterrupt", "KeyError")], cwd=ROOT,
                           capture_output=True, text=True, check=False)  # fmt: skip
    assert "Traceback" in ended.stderr


def test_a_device_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    wanted = load_params(ROOT / "params.yaml").runtime.model_copy(update={"device": "cuda"})
    with pytest.raises(StageError, match=r"runtime\.device = 'cuda', and torch .*; set it to auto or cpu"):
        prepare_torch(wanted, 0)
