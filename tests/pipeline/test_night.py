"""Two nights of the smoke profile, as a person on call has them: record, fresh clone, champion, decision, way back."""

import json
from pathlib import Path

import pytest
from clones import Clone, ran

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone with the smoke profile, a bare repository and a folder as remotes, after its first night."""
    clone = Clone.smoke(tmp_path_factory.mktemp("night"))
    # The smoke profile teaches nothing: what does not parse must not decide here.
    text = (clone.folder / "params.yaml").read_text()
    head, _, tail = text.partition("\njudge:")
    (clone.folder / "params.yaml").write_text(
        f"{head}\njudge:{tail.replace('parse_failures: 0.01', 'parse_failures: 1.0', 1)}"
    )
    clone.run("git", "commit", "--quiet", "--all", "--message", "what does not parse")
    clone.run("git", "push", "--quiet", "origin", "HEAD:refs/heads/main")
    clone.run("python", "-m", "flows.night")
    return clone


def tags(clone: Clone) -> list[str]:
    return clone.run("git", "tag", "--list").split()


def test_the_first_night_is_recorded_and_makes_the_champion(site: Clone) -> None:
    assert "saliency-r1@v0.0.1" in tags(site)
    assert "saliency-r1#champion#1" in tags(site)
    assert site.changed() == set()
    listed = site.run("saliency-r1", "nights")
    assert "promote" in listed
    assert "cgpo" in listed


def test_a_fresh_clone_at_its_tag_has_nothing_to_do_and_the_same_metrics(site: Clone, tmp_path: Path) -> None:
    (night,) = [tag for tag in tags(site) if tag.startswith("night/")]
    again = Clone.of(Path(site.run("git", "remote", "get-url", "origin").strip()), tmp_path / "again")
    again.run("git", "checkout", "--quiet", night)
    again.run("dvc", "pull")
    output = again.run("dvc", "repro")
    assert ran(output) == []
    assert "up to date" in output
    assert again.changed() == set()
    metrics = again.folder / "artifacts/metrics/metrics.json"
    assert json.loads(metrics.read_text()) == json.loads(
        site.run("git", "show", f"{night}:artifacts/metrics/metrics.json")
    )
    status = json.loads(again.run("dvc", "status", "--json"))
    assert not status


def test_the_next_night_compares_itself_and_changes_nothing(site: Clone) -> None:
    site.run("python", "-m", "flows.night")
    night = sorted(tag for tag in tags(site) if tag.startswith("night/"))[-1]
    decision = json.loads(site.run("git", "show", f"{night}:records/decision.json"))
    assert decision["verdict"] == "keep"
    # The same model, asked again from the folder in the registry: the same answers.
    assert decision["overall"]["difference"] == decision["overall"]["low"] == decision["overall"]["high"] == 0
    assert "saliency-r1@v0.0.2" not in tags(site)


def test_the_champion_is_a_folder_that_answers(site: Clone, tmp_path: Path) -> None:
    code = "from saliency_r1.registry.champion import resolve; print(resolve('champion'))"
    folder = site.folder / site.run("python", "-c", code).split()[-1]
    assert {path.name for path in folder.iterdir()} >= {
        "adapter", "policy", "segmenter", "params.yaml", "metrics.json", "model.json", "README.md",
    }  # fmt: skip
    assert "| adapter |" in (folder / "README.md").read_text()
    picture = next((site.folder / "runs/nights/tree/artifacts/download/datasets").rglob("images/*.*"))
    site.run("saliency-r1", "predict", str(picture), "--out", str(tmp_path / "out"), "--model", "champion")
    assert (tmp_path / "out" / "response.json").exists()
