"""Versions and the champion as git tags: GTO reads them, a rollback is one tag more, nothing is overwritten."""

import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from saliency_r1.cli.app import app
from saliency_r1.prediction.models import choose
from saliency_r1.registry.champion import (
    FETCHED,
    RegistryError,
    appoint,
    assign,
    before,
    champion,
    find,
    history,
    register,
    resolve,
    rolled_back,
    rolled_back_as,
    versions,
)
from saliency_r1.registry.git import LOCAL, GitError, git, learn, share, tags
from saliency_r1.yaml_loader import load_yaml

ROOT = Path(__file__).parents[2]
WHO = ("-c", "user.name=test", "-c", "user.email=test@example.org")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with three commits, of which the first two are versions 1 and 2, and 2 is the champion."""
    folder = tmp_path / "project"
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    for number in range(3):
        git(folder, *WHO, "commit", "--quiet", "--allow-empty", "--message", str(number))
        if number < 2:
            assign(folder, register(folder, "HEAD", *WHO).name, *WHO)
    return folder


def names(found: list) -> list[str]:
    return [version.name for version in found]


def test_the_last_assignment_holds_and_all_are_remembered(project: Path) -> None:
    assert names(versions(project)) == ["v0.0.1", "v0.0.2"]
    assert champion(project) == find(project, "v0.0.2")
    assert champion(project).commit == git(project, "rev-parse", "HEAD~1")
    assign(project, before(project).name, *WHO)
    assert champion(project).name == "v0.0.1"
    assert before(project).name == "v0.0.2", "a rollback can be rolled back"
    assert names(history(project)) == ["v0.0.1", "v0.0.2", "v0.0.1"]


def test_the_tenth_comes_after_the_ninth(project: Path) -> None:
    for _ in range(9):
        assign(project, register(project, "HEAD", *WHO).name, *WHO)
    assert champion(project).name == names(versions(project))[-1] == "v0.0.11"


def test_settings_and_callers_of_git_change_nothing(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tags in columns; the variables that git gives to a hook of another repository."""
    git(project, "config", "column.ui", "always")
    other = tmp_path / "other"
    subprocess.run(["git", "init", "--quiet", str(other)], check=True)
    for name in LOCAL:
        monkeypatch.setenv(name, str(other / ".git"))
    assert names(versions(project)) == ["v0.0.1", "v0.0.2"]
    assert champion(project).name == "v0.0.2"


def test_what_is_not_there_is_named_with_what_is(project: Path) -> None:
    with pytest.raises(RegistryError, match=r"has no v0\.0\.9; versions: v0\.0\.1, v0\.0\.2"):
        assign(project, "v0.0.9")
    assert resolve("some/folder", project) == Path("some/folder")


def test_a_model_that_is_nowhere_is_named(project: Path) -> None:
    with pytest.raises(RegistryError, match=r"(?s)artifacts/model of v0\.0\.2 is neither in DVC's cache nor"):
        resolve("champion", project)
    assert not [path for path in (project / "runs/models").iterdir() if path.suffix != ".lock"]


def test_two_that_fetch_the_champion_at_once_both_have_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = []
    run = subprocess.run

    def get(command: list[str], **options: Any) -> Any:
        if "dvc" not in command:
            return run(command, **options)
        aside = Path(command[command.index("--out") + 1])
        aside.mkdir(parents=True, exist_ok=True)
        (aside / "model.json").write_text("{}")
        fetched.append(aside)
        time.sleep(0.3)  # the other one comes meanwhile
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", get)
    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(lambda name: resolve(name, project), ["champion", "v0.0.2"]))
    assert folders == [project / FETCHED / champion(project).commit] * 2
    assert len(fetched) == 1, "the second one waits for the first and finds it there"
    assert (folders[0] / "model.json").read_text() == "{}"


@pytest.mark.parametrize("version", ["this", "another"])
def test_predict_answers_with_the_champion_in_the_sizes_of_its_training(
    project: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    folder = project / FETCHED / champion(project).commit
    for name in ("adapter", "policy", "segmenter"):
        (folder / name).mkdir(parents=True)
    params = load_yaml(ROOT / "params.yaml")
    params["policy"]["max_new_tokens"] = 77
    if version == "another":
        del params["drift"]
        params |= {"gone": 1, "rewards": {}}
    (folder / "params.yaml").write_text(json.dumps(params))
    (folder / "model.json").write_text('{"title": "t", "policy": {"source": "a"}, "segmenter": {"source": "b"}}')
    monkeypatch.chdir(project)
    chosen = choose("champion")
    assert (chosen.policy, chosen.adapter, chosen.segmenter) == tuple(
        FETCHED / folder.name / name for name in ("policy", "adapter", "segmenter")
    )
    assert chosen.settings.max_new_tokens == 77
    assert choose("champion", str(ROOT)).segmenter == ROOT, "another segmenter may be named"


def test_what_somebody_rolled_back_from_is_remembered(project: Path) -> None:
    assert rolled_back(project) == [], "v0.0.1 was followed by a newer one"
    assign(project, "v0.0.1", *WHO)
    assert names(rolled_back(project)) == ["v0.0.2"]
    assign(project, register(project, "HEAD", *WHO).name, *WHO)
    assert names(rolled_back(project)) == ["v0.0.2"], "a later champion changes nothing about it"
    assign(project, "v0.0.2", *WHO)
    assert names(rolled_back(project)) == ["v0.0.3"], "somebody came back to v0.0.2"


def test_a_tree_with_the_adapter_of_a_version_that_was_rolled_back_is_that_version(project: Path) -> None:
    lock = project / "dvc.lock"

    def train(adapter: str) -> None:
        entry = {"path": "artifacts/cgpo/adapter", "hash": "md5", "md5": adapter}
        lock.write_text(json.dumps({"schema": "2.0", "stages": {"params": {"cmd": "a"}, "masks": {"deps": [entry]}}}))

    train("aa.dir")
    git(project, "add", "dvc.lock")
    git(project, *WHO, "commit", "--quiet", "--message", "trained")
    assign(project, register(project, "HEAD", *WHO).name, *WHO)
    assert rolled_back_as(project) is None
    assign(project, "v0.0.2", *WHO)
    assert rolled_back_as(project) == find(project, "v0.0.3")
    train("bb.dir")
    assert rolled_back_as(project) is None
    lock.unlink()
    assert rolled_back_as(project) is None, "v0.0.2 has no dvc.lock either, and that makes them no equals"


def test_gto_reads_the_same(project: Path) -> None:
    time.sleep(1.1)  # it goes by the time of a tag, in whole seconds
    assign(project, "v0.0.1", *WHO)
    command = ["gto", "show", "saliency-r1#champion", "--json", "--repo", str(project)]
    shown = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert shown[0]["version"] == champion(project).name == "v0.0.1"


@pytest.mark.parametrize("whom", [["v0.0.2", "champion"], ["v0.0.2"]], ids=["assignment", "version"])
def test_what_gto_takes_back_is_taken_back(project: Path, whom: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "t")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "t@example.org")
    subprocess.run(["gto", "deprecate", "--repo", str(project), "saliency-r1", *whom], capture_output=True, check=True)
    assert champion(project).name == "v0.0.1"
    assert names(history(project)) == ["v0.0.1", "v0.0.2", "v0.0.1"]
    assert names(rolled_back(project)) == ["v0.0.2"], "and is not promoted again when it is trained again"
    assert names(versions(project)) == ["v0.0.1", "v0.0.2"][: len(whom)]
    assert assign(project, register(project, "HEAD", *WHO).name, *WHO).name == "v0.0.3"
    assert champion(project).name == "v0.0.3"


def test_the_last_one_who_is_taken_back_leaves_no_champion(project: Path) -> None:
    for number, revision in ((3, "HEAD~1"), (4, "HEAD~2")):
        git(project, *WHO, "tag", "--annotate", "--message", "back", f"saliency-r1#champion!#{number}", revision)
    assert champion(project) is None
    assert history(project) == []


def test_a_champion_that_the_git_remote_refuses_is_none_here_either(project: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    subprocess.run(["git", "init", "--quiet", "--bare", str(bare)], check=True)
    git(project, "remote", "add", "origin", str(bare))
    git(project, "config", "user.name", "t")
    git(project, "config", "user.email", "t@example.org")
    hook = bare / "hooks/pre-receive"
    hook.write_text("#!/bin/sh\necho protected >&2\nexit 1\n")
    hook.chmod(0o755)
    before_it = tags(project, "*")
    with pytest.raises(GitError, match=r"(?s)the champion is who it was.*protected"):
        appoint(project, "v0.0.1")
    assert tags(project, "*") == before_it
    hook.unlink()
    assert appoint(project, "v0.0.1") == "origin"
    assert champion(project).name == champion(bare).name == "v0.0.1"


def test_a_champion_whose_version_was_deleted_is_found_and_said(project: Path) -> None:
    git(project, "tag", "--delete", "saliency-r1@v0.0.2")
    commit = git(project, "rev-parse", "HEAD~1")
    (project / FETCHED / commit).mkdir(parents=True)
    assert resolve("champion", project) == project / FETCHED / commit
    said = CliRunner().invoke(app, ["champion", "--root", str(project)]).output
    assert f"{commit[:12]} is the champion and no version" in said


def test_a_clone_that_pulls_has_the_same_champion(project: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", str(project), str(bare)], check=True)
    git(project, "remote", "add", "origin", str(bare))
    assign(project, "v0.0.1", *WHO)
    assert share(project) == "origin"
    subprocess.run(["git", "clone", "--quiet", str(bare), str(tmp_path / "other")], check=True)
    assert champion(tmp_path / "other") == champion(project)


def test_what_another_clone_has_pushed_is_learned_and_numbers_go_on_from_it(project: Path, tmp_path: Path) -> None:
    bare, other = tmp_path / "bare.git", tmp_path / "other"
    subprocess.run(["git", "clone", "--quiet", "--bare", str(project), str(bare)], check=True)
    subprocess.run(["git", "clone", "--quiet", str(bare), str(other)], check=True)
    git(project, "remote", "add", "origin", str(bare))
    git(project, "config", "fetch.prune", "true")
    git(project, *WHO, "tag", "--annotate", "--message", "not pushed yet", "night/2026-03-01")
    git(other, "tag", "mine")
    assign(other, "v0.0.1", *WHO)
    share(other)
    assert champion(project).name == "v0.0.2"
    said: list[str] = []
    learn(project, said.append)
    assert champion(project).name == "v0.0.1"
    assert not said
    assert git(project, "tag", "--list", "night/*") == "night/2026-03-01"
    assign(project, register(project, "HEAD", *WHO).name, *WHO)
    assert share(project) == "origin"


def test_a_remote_that_cannot_be_reached_is_told_of_and_stops_nothing(project: Path, tmp_path: Path) -> None:
    said: list[str] = []
    learn(project, said.append)
    assert not said, "there is none"
    git(project, "remote", "add", "origin", str(tmp_path / "nowhere"))
    learn(project, said.append)
    assert said[0].startswith("going on with the tags that are here; those of the git remote origin could not be")
    with pytest.raises(GitError):
        share(project)


ASKING = """#!/bin/sh
case "$*" in *BatchMode=yes*) echo "Host key verification failed." >&2; exit 255;; esac
echo asked by $0 >&2; exit 255
"""


def test_a_remote_that_would_ask_somebody_fails_instead(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ssh asks at the terminal, which nobody reads at night; who has chosen another command is taken at his word."""
    for name in ("ssh", "own"):
        (tmp_path / name).write_text(ASKING)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path), os.environ["PATH"]]))
    for name in ("GIT_SSH_COMMAND", "GIT_SSH"):
        monkeypatch.delenv(name, raising=False)
    git(project, "remote", "add", "origin", "ssh://somebody@nowhere.example.org/project.git")
    with pytest.raises(GitError, match="Host key verification failed"):
        share(project)
    git(project, "config", "core.sshCommand", str(tmp_path / "own"))
    with pytest.raises(GitError, match=r"asked by .*own"):
        share(project)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(tmp_path / "ssh"))
    with pytest.raises(GitError, match=r"asked by .*ssh"):
        share(project)


def test_hooks_of_people_stop_no_push(project: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    subprocess.run(["git", "init", "--quiet", "--bare", str(bare)], check=True)
    git(project, "remote", "add", "origin", str(bare))
    hook = project / ".git/hooks/pre-push"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    assert share(project) == "origin"
