"""Two workers in two clones that share git and DVC's remote alone: the numbers of one machine, to the last digit."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from blocks import blocks
from clones import ROOT, Clone, ran
from prefect_site import Site
from processes import until

pytestmark = pytest.mark.slow
POOLS = ("light", "gpu")
METRICS = "artifacts/metrics/metrics.json"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The smoke profile and its remotes."""
    return Clone.smoke(tmp_path_factory.mktemp("machines"))


@pytest.fixture(scope="module")
def branch(project: Clone) -> Iterator[str]:
    """What the workers have pushed, after a run of everything; in the project itself `dvc repro` has run meanwhile."""
    folder = project.folder.parent
    site = Site(folder, project.environment["PATH"], lambda path: path)
    site.environment |= {"PREFECT_API_URL": f"http://127.0.0.1:{site.port}/api"}
    project.environment["PREFECT_API_URL"] = site.environment["PREFECT_API_URL"]
    try:
        site.serve_api()
        until(lambda: site.client.api_healthcheck() is None, 120)
        for pool in POOLS:
            project.run("prefect", "work-pool", "create", pool, "--type", "process")
        project.run("prefect", "--no-prompt", "deploy", "--all")
        alone = site.start("alone", "exec dvc repro", project.folder, PATH=project.environment["PATH"])
        for pool in POOLS:
            clone = Clone.of(folder / "bare.git", folder / pool)
            script = f"exec prefect worker start --pool {pool} --name {pool}"
            site.start(f"worker-{pool}", script, clone.folder, PYTHONPATH=str(clone.folder / "src"))
        project.run("prefect", "deployment", "run", "saliency-r1-machines/all", "--watch")
        (name,) = project.run("git", "ls-remote", "--heads", "origin", "machines/*").split()[1::2]
        assert alone.wait(600) == 0
        yield name.removeprefix("refs/heads/")
    finally:
        site.close()


def test_the_metrics_are_those_of_one_machine(project: Clone, branch: str) -> None:
    project.run("git", "fetch", "--quiet", "origin", branch)
    assert (project.folder / METRICS).read_text() == project.run("git", "show", f"FETCH_HEAD:{METRICS}")


def test_each_stage_ran_where_it_belongs(project: Clone, branch: str) -> None:
    logs = {pool: (project.folder.parent / f"worker-{pool}.log").read_text() for pool in POOLS}
    assert {stage.split("@")[-1] for stage in _ran(logs["gpu"])} == {"sft", "cgpo", "masks"}
    assert {stage.split("@")[-1] for stage in _ran(logs["light"])} == {
        "params", "download", "annotate", "metrics", "model", "report",
    }  # fmt: skip


def test_a_fresh_clone_of_the_branch_pulls_and_has_nothing_to_do(project: Clone, branch: str, tmp_path: Path) -> None:
    again = Clone.of(project.folder.parent / "bare.git", tmp_path / "again")
    again.run("git", "checkout", "--quiet", branch)
    again.run("dvc", "pull")
    assert ran(again.run("dvc", "repro")) == []
    assert again.changed() == set()


def test_the_commands_of_the_sample_workflow_reproduce_and_compare(project: Clone, branch: str, tmp_path: Path) -> None:
    """As docs/machines.md has them, on a change of a parameter that concerns the page alone."""
    clone = Clone.of(project.folder.parent / "bare.git", tmp_path / "change")
    clone.run("git", "checkout", "--quiet", branch)
    params = clone.folder / "params.yaml"
    text = params.read_text()
    assert "examples: 2 " in text
    params.write_text(text.replace("examples: 2 ", "examples: 1 "))
    clone.run("git", "commit", "--quiet", "--all", "--message", "fewer examples")
    (workflow,) = [block for block in blocks(ROOT / "docs" / "machines.md") if "pull_request" in block.text]
    (job,) = yaml.safe_load(workflow.text)["jobs"].values()
    steps = {step["name"]: step["run"] for step in job["steps"] if "run" in step}
    clone.environment |= {"BASE": "HEAD^"}
    assert set(ran(clone.run("bash", "-e", "-c", steps["reproduce"]))) == {"params", "model", "report"}
    clone.run("bash", "-e", "-c", steps["compare"])
    comment = (clone.folder / "runs/ci/comment.md").read_text()
    assert "| params.yaml | report.examples | 2" in comment
    assert (clone.folder / "runs/ci/plots/index.html").stat().st_size > 10_000


def _ran(log: str) -> list[str]:
    return [line.split("'")[-2] for line in log.splitlines() if "Running stage '" in line]
