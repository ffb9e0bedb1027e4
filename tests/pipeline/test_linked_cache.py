"""A workspace whose files share their bytes with DVC's cache: no stage may write through a link."""

import hashlib
from pathlib import Path

import pytest
from clones import Clone, ran

pytestmark = pytest.mark.slow


def test_stages_replace_linked_files_and_never_change_them(clone: Clone, tmp_path: Path) -> None:
    clone.run("git", "add", "--update")
    clone.run("git", "commit", "--quiet", "--allow-empty", "--message", "A run")
    linked = Clone.of(clone.folder, tmp_path / "linked")
    linked.run("cp", "-r", str(clone.folder / ".dvc/cache"), ".dvc/cache")
    linked.run("dvc", "config", "--local", "cache.type", "hardlink")
    linked.run("dvc", "checkout")
    file = linked.folder / "artifacts/sft/adapter/adapter_model.safetensors"
    assert file.stat().st_nlink == 2
    before = linked.results()
    assert ran(linked.run("dvc", "repro")) == []
    for stage in ("sft", "cgpo", "masks", "metrics", "check@masks", "report"):
        assert linked.repro("--force", "--single-item", stage) == [stage]
    assert {path: linked.results()[path] for path in before if "costs" not in path} == {
        path: value for path, value in before.items() if "costs" not in path
    }
    for path in (linked.folder / ".dvc/cache/files/md5").glob("??/*"):
        name = (path.parent.name + path.name).removesuffix(".dir")
        assert hashlib.md5(path.read_bytes()).hexdigest() == name, "a file was changed that the cache shares"
