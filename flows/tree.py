"""A tree of its own for a night, beside the one that people work in: made from a branch, ended in a commit and a tag.

It is a git worktree in runs/nights/tree that shares DVC's cache with the project. Files that git ignores stay in it
from night to night, so an import finds what it has imported and a training that was killed goes on.
"""

import shutil
import subprocess
from collections.abc import Callable
from datetime import date
from itertools import count
from pathlib import Path

from flows.pipeline import dvc_as_child
from saliency_r1.registry.champion import assign, register
from saliency_r1.registry.git import GitError, environment, git, learn, share, tags
from saliency_r1.registry.nights import LOGS, PREFIX

TREE = Path("runs/nights/tree")
IDENTITY = (
    "-c", "user.name=night", "-c", "user.email=night@localhost",
    "-c", "commit.gpgSign=false", "-c", "tag.gpgSign=false",  # a person's key asks for its passphrase
)  # fmt: skip
RECORDS = ("dvc.lock", "params.yaml", "artifacts/metrics/metrics.json", "records")


class NightError(ValueError):
    """A night that cannot begin or cannot be recorded; the message says what to do."""


def prepare(folder: Path, branch: str | None) -> Path:
    """The night's tree as the branch (by default the one that is checked out in `folder`) has it.

    Raises `NightError` where the project has edits that are in no commit.
    """
    return check_out(folder, committed(folder, branch))


def committed(folder: Path, branch: str | None) -> str:
    """The commit of the branch (by default the one that is checked out in `folder`).

    Raises `NightError` where the project has edits that are in no commit: they would be missing from the night; and for
    a project without a repository of its own.
    """
    expect_own_repository(folder)
    edited = git(folder, "status", "--porcelain", "--untracked-files=no")
    if edited:
        raise NightError(
            f"{folder} has edits that are in no commit, and a night runs what is committed; commit them or put them "
            f"away (`git stash`):\n{edited}"
        )
    branch = branch or git(folder, "rev-parse", "--abbrev-ref", "HEAD")
    return git(folder, "rev-parse", "--verify", f"{branch}^{{commit}}")


def expect_own_repository(folder: Path) -> None:
    """Raise `NightError` for a project in a folder of a larger repository, and for a submodule.

    A night's tree, its tags and `dvc get` of a champion are those of a whole repository; of a submodule git checks a
    worktree out into the submodule itself.
    """
    if inside := git(folder, "rev-parse", "--show-prefix"):
        found = f"is the folder {inside} of the repository {git(folder, 'rev-parse', '--show-toplevel')}"
    elif above := git(folder, "rev-parse", "--show-superproject-working-tree"):
        found = f"is a submodule of {above}"
    else:
        return
    raise NightError(f"{folder} {found}; a night needs a repository of its own: run it in a clone of the project alone")


def check_out(folder: Path, commit: str) -> Path:
    """The night's tree as a commit has it, made where there is none."""
    tree = folder / TREE
    git(folder, "worktree", "prune")
    if not _is_worktree(tree):
        shutil.rmtree(tree, ignore_errors=True)
        git(folder, "worktree", "add", "--force", "--detach", str(tree), commit)
    # A killed git leaves index.lock and HEAD.lock. The night holds the folder, so no other one is at work here.
    for lock in Path(git(tree, "rev-parse", "--absolute-git-dir")).glob("*.lock"):
        lock.unlink()
    git(tree, "checkout", "--quiet", "--force", "--detach", commit)
    git(tree, "clean", "--quiet", "--force", "-d")
    _share_cache(folder, tree)
    return tree


def _is_worktree(tree: Path) -> bool:
    try:
        return Path(git(tree, "rev-parse", "--show-toplevel")).resolve() == tree.resolve()
    except GitError:
        return False


def _share_cache(folder: Path, tree: Path) -> None:
    """Let the tree use the project's cache and remotes, the settings in config.local included.

    A remote in a folder beside the project stands in .dvc/config as `url = ../../store`, which starts from wherever
    that file lies: in the tree it would be another folder, and what is pushed there nobody finds.
    """
    from dvc.config_schema import RelPath
    from dvc.repo import Repo

    with Repo(str(folder)) as repo:
        cache = Path(repo.cache.local.path).resolve().parents[1]  # without files/md5
        local = repo.config.read("local")  # its paths are absolute by now
        remotes = repo.config.read("repo")["remote"]
    with Repo(str(tree)) as repo, repo.config.edit("local") as settings:
        settings.clear()
        settings.update(local)
        settings.setdefault("cache", {})["dir"] = str(cache)
        for name, remote in remotes.items():
            # DVC marks the paths that it has made absolute by a type of their own.
            paths = {key: str(value) for key, value in remote.items() if isinstance(value, RelPath)}
            settings["remote"][name] = paths | settings["remote"].get(name, {})


def dvc(tree: Path, *arguments: str) -> str:
    """What a DVC command prints, run in a tree. Raises `NightError` with what it said."""
    ended = subprocess.run(
        [*dvc_as_child(), *arguments], cwd=tree, env=environment() | {"DVC_NO_ANALYTICS": "1"},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        encoding="utf-8", errors="replace", check=False,
    )  # fmt: skip
    if ended.returncode:
        raise NightError(f"`dvc {' '.join(arguments)}` in {tree} failed:\n{ended.stdout.strip()}")
    return ended.stdout.strip()


def refresh(tree: Path, say: Callable[[str], None]) -> None:
    """Bring imports of DVC (`dvc import`, `dvc import-url`) up to date, which `dvc repro` never does.

    Raises `NightError` where a source cannot be reached.
    """
    from dvc.repo import Repo

    with Repo(str(tree)) as repo:
        imports = [stage.path_in_repo for stage in repo.index.stages if stage.is_import and stage.frozen]
    if imports:
        say(dvc(tree, "update", *imports))


def begin(folder: Path, day: date) -> str:
    """The name of a night that begins now: its day, and for a second one of a day a number. Its log is made.

    Making the log takes the name: a night that failed keeps its own.
    """
    (folder / LOGS).mkdir(parents=True, exist_ok=True)
    name = _free(folder, day.isoformat())
    (folder / LOGS / f"{name}.log").touch()
    return name


def _free(folder: Path, day: str) -> str:
    """The first name of a day that no night has, neither by its tag nor by its log."""
    taken = {tag.removeprefix(PREFIX) for tag in tags(folder, f"{PREFIX}*")}
    taken |= {log.stem for log in (folder / LOGS).glob("*.log")}
    names = (day if number == 1 else f"{day}.{number}" for number in count(1))
    return next(name for name in names if name not in taken)


def _own_name(tree: Path, name: str) -> str:
    """The name of a night, or a free one, with its log, where another clone was faster with a night of that name."""
    if not tags(tree, PREFIX + name):
        return name
    folder = tree.parents[len(TREE.parts) - 1]
    own = _free(folder, name.partition(".")[0])
    if (log := folder / LOGS / f"{name}.log").exists():
        log.rename(folder / LOGS / f"{own}.log")
    return own


def _has_remote(tree: Path) -> bool:
    from dvc.repo import Repo

    with Repo(str(tree)) as repo:
        return bool(repo.config["core"].get("remote"))


def _lost(tree: Path) -> list[str]:
    """The outputs in dvc.lock that DVC's cache has not, or not whole."""
    from dvc.repo import Repo

    with Repo(str(tree)) as repo:
        made = [out for out in repo.index.outs if out.stage.path_in_repo == "dvc.yaml" and out.hash_info]
        return sorted(out.def_path for out in made if out.use_cache and out.changed_cache())


def record(tree: Path, name: str, promote: bool, say: Callable[[str], None]) -> str:
    """Push what DVC keeps, commit, tag, push the tags; returns the night's tag. A failure leaves no tag.

    Raises `NightError` where an output is not in DVC's cache.

    The tag is the record, and one write: a night that is killed has it or has it not. With `promote` the commit becomes
    a version and the champion as well. Tags that could not be pushed are taken back; those of a night that was killed
    before its push go with the next one's.
    """
    # `dvc push` says so too, and ends as if nothing were wrong.
    if lost := _lost(tree):
        raise NightError(
            f"{', '.join(lost)} of {tree} is not in DVC's cache, so nobody could have this night's results again: did "
            "`dvc gc` run in the project during the night? `dvc commit --force dvc.yaml` in that tree puts back what "
            "it still has; where it has nothing, `rm -r` the tree and it is made again. Then run the night again"
        )
    if _has_remote(tree):
        say(dvc(tree, "push", "--run-cache"))
    git(tree, "add", "--update")
    git(tree, "add", "--", *(path for path in RECORDS if (tree / path).exists()))
    learn(tree, say)  # others may have recorded a night or registered a version meanwhile
    name = _own_name(tree, name)
    git(tree, *IDENTITY, "commit", "--quiet", "--allow-empty", "--no-verify", "--message", f"Night {name} [skip ci]")
    tag = PREFIX + name
    try:
        git(tree, *IDENTITY, "tag", "--annotate", "--message", f"Night {name}", tag)
        if promote:
            assign(tree, register(tree, "HEAD", *IDENTITY).name, *IDENTITY)
        share(tree)
    except GitError:
        if made := git(tree, "tag", "--no-column", "--points-at", "HEAD").splitlines():  # nobody else knows this commit
            git(tree, "tag", "--delete", *made)
        raise
    return tag
