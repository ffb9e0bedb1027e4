"""Line ends are what was committed, on machines too whose git turns them into CRLF (core.autocrlf)."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_clone_with_autocrlf_has_the_bytes_that_dvc_and_make_know(tmp_path: Path) -> None:
    project, clone = tmp_path / "project", tmp_path / "clone"
    project.mkdir()
    names = [".gitattributes", "Makefile", "embedded/models/policy/chat_template.jinja"]
    for name in names:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, project / name)

    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *words], cwd=project, check=True)

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "all")
    git("clone", "--quiet", "--config", "core.autocrlf=true", ".", str(clone))
    assert [(clone / name).read_bytes() == (ROOT / name).read_bytes() for name in names] == [True] * len(names)
