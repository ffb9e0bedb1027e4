"""A clone of the project, as a person has it who has just cloned it, and the commands of that person."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


class Clone:
    """A clone of the repository and the commands of a person working in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.environment = os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "1"}
        self.environment.pop("PYTHONPATH", None)  # a stage finds the code of its own tree by itself

    @classmethod
    def of(cls, source: Path, folder: Path) -> "Clone":
        """A new clone of what is committed in another one."""
        subprocess.run(["git", "clone", "--quiet", str(source), str(folder)], check=True)
        clone = cls(folder)
        for key, value in (("user.name", "test"), ("user.email", "test@example.org")):
            clone.run("git", "config", key, value)
        return clone

    @classmethod
    def smoke(cls, folder: Path) -> "Clone":
        """A clone with the smoke profile, committed, a bare repository as origin and a folder as DVC's remote.

        They lie in `folder` as `project`, `bare.git` and `store`.
        """
        clone = cls.of(ROOT, folder / "project")
        clone.environment |= {
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",
            "PYTHONPATH": str(clone.folder / "src"),  # for the flows and the commands
        }
        clone.environment.pop("PREFECT_API_URL", None)
        subprocess.run(
            ["git", "init", "--quiet", "--bare", "--initial-branch", "main", str(folder / "bare.git")], check=True
        )
        clone.run("git", "remote", "set-url", "origin", str(folder / "bare.git"))
        clone.run("dvc", "remote", "add", "--default", "store", str(folder / "store"))
        shutil.copyfile(clone.folder / "profiles" / "smoke.yaml", clone.folder / "params.yaml")
        clone.run("git", "commit", "--quiet", "--all", "--message", "smoke")
        clone.run("git", "push", "--quiet", "origin", "HEAD:refs/heads/main")
        return clone

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command; returns all it printed, and fails with that, or with what it had printed after 20 minutes."""
        try:
            ended = subprocess.run(
                command, cwd=self.folder, env=self.environment, text=True, check=False, timeout=1200,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise AssertionError(error.output) from error
        assert (ended.returncode == 0) == check, ended.stdout
        return ended.stdout

    def repro(self, *options: str, check: bool = True) -> list[str]:
        """`dvc repro`; returns the stages that ran."""
        return ran(self.run("dvc", "repro", *options, check=check))

    def changed(self) -> set[str]:
        return {line[3:] for line in self.run("git", "status", "--porcelain", "--untracked-files=all").splitlines()}

    def results(self) -> dict[str, str]:
        """A hash of every file under artifacts/."""
        files = (path for path in (self.folder / "artifacts").rglob("*") if path.is_file())
        hashes = {path: hashlib.md5(path.read_bytes()).hexdigest() for path in files}
        return {path.relative_to(self.folder).as_posix(): value for path, value in hashes.items()}


def ran(output: str) -> list[str]:
    return re.findall(r"^Running stage '(.+)':", output, re.MULTILINE)
