"""A night's tree and its record, without Prefect: what is refused, what is shared, what a kill leaves."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from flows.night import compare, decide
from flows.tree import IDENTITY, NightError, begin, check_out, committed, dvc, prepare, record
from saliency_r1.registry.champion import assign, champion, register, versions
from saliency_r1.registry.git import GitError, git, share
from saliency_r1.registry.nights import LOGS, nights

DAY = date(2026, 3, 1)


def run(project: Path, **options: str) -> str:
    """A night by hand: its name."""
    name = begin(project, DAY)
    tree = prepare(project, None)
    dvc(tree, "repro")
    record(tree, name, False, print)
    return name


@pytest.fixture
def remotes(project: Path, tmp_path: Path, make_remotes: Callable[[Path, Path], Path]) -> Path:
    """The project with a bare repository as origin and a folder as DVC's remote; gives the repository."""
    return make_remotes(project, tmp_path)


@pytest.mark.slow
def test_a_night_is_a_commit_and_a_tag_and_leaves_the_project_alone(project: Path) -> None:
    head = git(project, "rev-parse", "HEAD")
    name = run(project)
    assert git(project, "rev-parse", "HEAD") == head
    assert git(project, "status", "--porcelain") == ""
    assert not (project / "artifacts").exists()
    assert git(project, "rev-parse", f"night/{name}^") == head
    assert set(git(project, "diff", "--name-only", head, f"night/{name}").splitlines()) == {
        "data.dvc", "dvc.lock", "artifacts/metrics/metrics.json",
    }  # fmt: skip
    (night,) = nights(project)
    assert night.metrics == {"cgpo": {"scenes-sod": {"Sm": 0.9}}}
    assert night.commit == git(project, "rev-parse", "--short", f"night/{name}^{{commit}}")


def test_edits_in_no_commit_are_refused_and_named(project: Path) -> None:
    (project / "params.yaml").write_text("seed: 8\n")
    with pytest.raises(NightError, match=r"(?s)no commit.*M params\.yaml"):
        prepare(project, None)
    git(project, "checkout", "--quiet", "params.yaml")
    (project / "notes.txt").write_text("mine")  # is in nobody's way
    prepare(project, None)
    assert (project / "notes.txt").exists()


def test_a_project_without_a_repository_of_its_own_is_refused_before_anything_is_made(
    project: Path, tmp_path: Path
) -> None:
    larger = tmp_path / "larger"
    subprocess.run(["git", "init", "--quiet", str(larger)], check=True)
    git(larger, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(project), "sub")
    (larger / "within").mkdir()
    git(larger, *IDENTITY, "commit", "--quiet", "--all", "--message", "larger")
    for name, words in (("sub", "is a submodule of .*larger"), ("within", "is the folder within/ of the repository")):
        with pytest.raises(NightError, match=f"{name} {words}.*in a clone of the project alone"):
            prepare(larger / name, None)
        assert not (larger / name / "runs").exists()


@pytest.mark.slow
def test_a_second_night_finds_what_the_first_has_done_and_has_a_name_of_its_own(project: Path) -> None:
    first, second = run(project), run(project)
    assert (first, second) == ("2026-03-01", "2026-03-01.2")
    assert git(project, "rev-parse", f"night/{first}^{{tree}}") == git(project, "rev-parse", f"night/{second}^{{tree}}")
    assert len([path for path in (project / ".dvc/cache/files").rglob("*") if path.is_file()]) == 5
    assert not (project / "runs/nights/tree/.dvc/cache").exists()


def test_a_killed_git_is_in_no_nights_way(project: Path) -> None:
    tree = prepare(project, None)
    for name in ("index.lock", "HEAD.lock"):
        (project / ".git/worktrees/tree" / name).write_text("")
    (tree / "params.yaml").write_text("half writ")
    (tree / "surplus.py").write_text("")
    prepare(project, None)
    assert (tree / "params.yaml").read_text() == "seed: 7\n"
    assert not (tree / "surplus.py").exists()


def test_a_tree_that_was_deleted_or_cut_off_in_its_making_is_made_again(project: Path) -> None:
    tree = prepare(project, None)
    (tree / ".git").unlink()
    assert (prepare(project, None) / ".git").exists()
    subprocess.run(["rm", "-r", str(tree)], check=True)
    assert (prepare(project, None) / "dvc.yaml").exists()


def test_a_remote_beside_the_project_is_the_same_one_for_the_tree(project: Path, tmp_path: Path) -> None:
    """`dvc remote add store ../store` keeps the path as relative to .dvc, and the tree's .dvc lies elsewhere."""
    dvc(project, "remote", "add", "--default", "store", "../store")
    dvc(project, "remote", "modify", "--local", "store", "jobs", "2")
    git(project, *IDENTITY, "commit", "--quiet", "--all", "--message", "remote")
    tree = prepare(project, None)
    assert dvc(tree, "remote", "list").split() == ["store", str(tmp_path / "store"), "(default)"]
    assert "jobs = 2" in (tree / ".dvc/config.local").read_text()
    dvc(tree, "repro", "first")
    record(tree, begin(project, DAY), False, print)
    assert (tmp_path / "store").is_dir()
    assert git(tree, "show", "HEAD:.dvc/config") == git(project, "show", "HEAD:.dvc/config")


NIGHT = """
from datetime import date
from pathlib import Path
from flows.pipeline import reproduce
from flows.tree import begin, prepare, record
tree = prepare(Path.cwd(), None)
reproduce("data.dvc", tree, print)
print(record(tree, begin(Path.cwd(), date(2026, 3, 1)), False, print))
"""


def test_a_night_that_a_hook_of_another_repository_starts_is_about_its_own_folder(
    project: Path, tmp_path: Path
) -> None:
    """git tells its hooks and aliases where its repository is, and DVC asks the same variables."""
    other = tmp_path / "other"
    subprocess.run(["git", "init", "--quiet", str(other)], check=True)
    told = {
        "GIT_DIR": other / ".git",
        "GIT_WORK_TREE": other,
        "GIT_INDEX_FILE": other / ".git/index",
        "GIT_PREFIX": "a",
    }
    environment = os.environ | {key: str(value) for key, value in told.items()}
    subprocess.run([sys.executable, "-c", NIGHT], cwd=project, env=environment, check=True)
    assert git(project, "tag", "--list") == "night/2026-03-01"
    assert set(git(project, "ls-tree", "--name-only", "night/2026-03-01").splitlines()) >= {"dvc.yaml", "data.dvc"}
    assert sorted(path.name for path in other.iterdir()) == [".git"]


def test_hooks_of_people_are_in_no_nights_way(project: Path) -> None:
    """`dvc install` makes some: they check out what DVC has, push it, and may fail."""
    for name in ("post-checkout", "pre-commit", "pre-push"):
        hook = project / ".git/hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text("#!/bin/sh\nexit 1\n")
        hook.chmod(0o755)
    record(prepare(project, None), begin(project, DAY), False, print)


def test_a_person_who_signs_commits_and_tags_does_not_sign_the_nights(project: Path) -> None:
    for key, value in (("commit.gpgSign", "true"), ("tag.gpgSign", "true"), ("gpg.program", "false")):
        git(project, "config", key, value)
    assert record(prepare(project, None), begin(project, DAY), False, print) == "night/2026-03-01"


def test_a_failed_push_takes_back_the_tags_of_the_night_and_no_others(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(tree: Path) -> None:
        git(project, "tag", "of-a-person")
        raise GitError("the remote is away")

    monkeypatch.setattr("flows.tree.share", fail)
    with pytest.raises(GitError, match="away"):
        record(prepare(project, None), begin(project, DAY), True, print)
    assert git(project, "tag", "--list") == "of-a-person"


def test_a_version_that_another_clone_registered_meanwhile_keeps_its_number(project: Path, tmp_path: Path) -> None:
    bare, other = tmp_path / "bare.git", tmp_path / "other"
    subprocess.run(["git", "clone", "--quiet", "--bare", str(project), str(bare)], check=True)
    subprocess.run(["git", "clone", "--quiet", str(bare), str(other)], check=True)
    git(project, "remote", "add", "origin", str(bare))
    tree = prepare(project, None)
    theirs = register(other, "HEAD", *IDENTITY)
    assign(other, theirs.name, *IDENTITY)
    share(other)
    record(tree, begin(project, DAY), True, print)
    assert [version.name for version in versions(bare)] == ["v0.0.1", "v0.0.2"]
    assert versions(bare)[0] == theirs


def test_a_night_whose_name_another_clone_took_meanwhile_is_recorded_under_the_next(
    project: Path, tmp_path: Path
) -> None:
    """Two clones with one remote and the same hour: neither knows of the other when it begins."""
    bare, other = tmp_path / "bare.git", tmp_path / "other"
    subprocess.run(["git", "clone", "--quiet", "--bare", str(project), str(bare)], check=True)
    subprocess.run(["git", "clone", "--quiet", str(bare), str(other)], check=True)
    git(project, "remote", "add", "origin", str(bare))
    ours, theirs = begin(project, DAY), begin(other, DAY)
    assert ours == theirs == "2026-03-01"
    assert record(prepare(other, None), theirs, True, print) == "night/2026-03-01"
    (project / LOGS / f"{ours}.log").write_text("ours")
    assert record(prepare(project, None), ours, True, print) == "night/2026-03-01.2"
    assert [night.name for night in nights(project)] == ["2026-03-01", "2026-03-01.2"]
    assert [(night.log and night.log.read_text()) for night in nights(project)] == [None, "ours"]
    assert git(project, "log", "-1", "--format=%s", "night/2026-03-01.2") == "Night 2026-03-01.2 [skip ci]"


def test_a_champion_that_changes_while_the_judge_compares_is_compared_with(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        git(project, *IDENTITY, "commit", "--quiet", "--allow-empty", "--message", str(number))
        assign(project, register(project, "HEAD", *IDENTITY).name, *IDENTITY)
    against = []

    def judge(tree: Path, theirs: Path | None, name: str) -> bool:
        against.append((theirs, name))
        if name == "v0.0.2":
            assign(project, "v0.0.1", *IDENTITY)
        return name == "v0.0.2"

    monkeypatch.setattr("flows.night.decide", judge)
    monkeypatch.setattr("flows.night.resolve", lambda name, folder: Path(name) / str(champion(folder).name))
    said: list[str] = []
    assert compare(project, project, said.append) is False
    assert against == [(Path(f"champion/{name}").resolve(), name) for name in ("v0.0.2", "v0.0.1")]
    assert len(said) == 1


def test_a_model_that_was_rolled_back_is_not_promoted_again(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """v0.0.2 was better in the test and worse in use; trained again it is the same, and better in the test again."""
    entry = "{path: artifacts/cgpo/adapter, hash: md5, md5: %s.dir}"
    tree = prepare(project, None)
    (tree / "stages").mkdir()
    (tree / "stages/judge.py").write_text("")
    (tree / "records").mkdir()
    shown = []
    monkeypatch.setattr("flows.night.run", lambda *_: None)
    monkeypatch.setattr("flows.night.get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setattr("flows.night.show_decision", lambda text, *_: shown.append(text))

    def judged(adapter: str) -> bool:
        (tree / "dvc.lock").write_text(f"schema: '2.0'\nstages: {{masks: {{cmd: a, deps: [{entry % adapter}]}}}}\n")
        (tree / "records/decision.json").write_text('{"verdict": "promote", "reasons": ["it is better"]}')
        (tree / "records/decision.md").write_text("**this run's model takes the place of the champion**\n")
        return decide.fn(tree, None, "v0.0.1")

    for day, adapter in enumerate(("aa", "bb"), start=1):
        assert judged(adapter)
        record(tree, f"2026-03-0{day}", True, print)
    assign(project, "v0.0.1", *IDENTITY)
    assert not judged("bb")
    decision = json.loads((tree / "records/decision.json").read_text())
    assert decision["verdict"] == "keep"
    assert decision["reasons"][0].startswith("it is v0.0.2 again, byte for byte, from which somebody rolled back")
    assert shown[-1].startswith("**not promoted: it is v0.0.2 again")
    assert (tree / "records/decision.md").read_text() == shown[-1]
    assert judged("cc"), "another model is none of that"


def test_a_commit_that_was_asked_for_once_stays_when_the_branch_moves(project: Path) -> None:
    commit = committed(project, None)
    (project / "params.yaml").write_text("seed: 8\n")
    git(project, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "--all", "--message", "moved")
    (project / "params.yaml").write_text("seed: 9\n")
    assert (check_out(project, commit) / "params.yaml").read_text() == "seed: 7\n"


@pytest.mark.slow
def test_results_that_were_collected_meanwhile_leave_no_tag(project: Path) -> None:
    name = begin(project, DAY)
    tree = prepare(project, None)
    dvc(tree, "repro")
    dvc(project, "gc", "--workspace", "--all-tags", "--force")
    words = r"first\.json, artifacts/first/table\.txt of .* is not in DVC's cache.*`dvc commit --force dvc.yaml`"
    with pytest.raises(NightError, match=words):
        record(tree, name, True, print)
    assert git(project, "tag", "--list") == ""
    dvc(tree, "commit", "--force", "dvc.yaml")
    dvc(tree, "repro")
    assert record(tree, name, True, print) == f"night/{name}"


@pytest.mark.slow
def test_a_clone_at_the_tag_pulls_and_has_nothing_to_do(project: Path, remotes: Path, tmp_path: Path) -> None:
    tag = f"night/{run(project)}"
    again = tmp_path / "again"
    subprocess.run(["git", "clone", "--quiet", "--branch", tag, str(remotes), str(again)], check=True)
    before = (again / "artifacts/metrics/metrics.json").read_text()
    dvc(again, "pull", "data.dvc", "first", "check@first")  # not the second pipeline, which has never run
    output = dvc(again, "repro")
    assert "Running stage" not in output
    assert "up to date" in output
    assert git(again, "status", "--porcelain") == ""
    assert (again / "artifacts/metrics/metrics.json").read_text() == before


@pytest.mark.slow
def test_a_push_that_fails_leaves_no_tag_and_the_next_night_is_recorded(project: Path, remotes: Path) -> None:
    hook = remotes / "hooks/pre-receive"
    hook.write_text("#!/bin/sh\necho the disk is full >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(GitError, match="the disk is full"):
        run(project)
    assert [night.commit for night in nights(project)] == [None]
    hook.unlink()
    assert run(project) == "2026-03-01.2", "the log of the first keeps its name"
    assert git(remotes, "tag", "--list") == "night/2026-03-01.2"


@pytest.mark.slow
def test_a_store_that_fails_leaves_no_tag(project: Path, remotes: Path, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file, where the folder of the remote should be")
    with pytest.raises(NightError, match=r"`dvc push --run-cache` in .* failed"):
        run(project)
    assert git(project, "tag", "--list") == ""


@pytest.mark.slow
def test_the_tag_of_a_night_killed_before_its_push_goes_with_the_next(project: Path, remotes: Path) -> None:
    git(project, "-c", "user.name=t", "-c", "user.email=t@t", "tag", "-a", "-m", "killed", "night/2026-02-28")
    run(project)
    assert git(remotes, "tag", "--list").splitlines() == ["night/2026-02-28", "night/2026-03-01"]


@pytest.mark.slow
def test_the_command_lists_both_kinds(project: Path) -> None:
    run(project)
    begin(project, DAY)
    command = [sys.executable, "-m", "saliency_r1.cli", "nights", "--measure", "cgpo.scenes-sod.Sm"]
    printed = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True).stdout
    first, second = printed.splitlines()
    assert "cgpo.scenes-sod.Sm 0.9000" in first
    assert second.split() == ["2026-03-01.2", "no", "record:", "runs/nights/logs/2026-03-01.2.log"]
    assert json.loads(git(project, "show", "night/2026-03-01:artifacts/metrics/metrics.json"))
