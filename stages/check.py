"""Hold a stage's table to its suite: `python stages/check.py sft` -> artifacts/checks/sft.json.

A table that fails stops the line here, with the column, the expectation and the samples. `python stages/check.py
params` does the same for params.yaml, before any work: it is read, and preflight.py looks at what it asks for.
"""

import gc
import sys
from pathlib import Path
from typing import Any

import own_tree  # noqa: F401

from saliency_r1.params import Params, describe_params
from saliency_r1.runtime.files import write_json
from saliency_r1.runtime.stage import run_stage


def main(params: Params) -> None:
    """Check the table of the stage named on the command line and write the report."""
    stage = sys.argv[1]
    if stage == "params":
        import preflight

        preflight.look(params, Path.cwd())
        expectations = [{"column": key, "expectation": kind} for key, kind in describe_params().items()]
        report: dict[str, Any] = {"stage": stage, "rows": len(expectations), "expectations": expectations}
    else:
        from saliency_r1.quality import GateError, check

        failed = Path("runs/checks") / f"{stage}.json"
        failed.unlink(missing_ok=True)
        try:
            report = check(stage, params)
        except GateError as error:
            # No output of the graph: a gate that fails has none. The flow shows it.
            if error.report is not None:
                failed.parent.mkdir(parents=True, exist_ok=True)
                write_json(failed, error.report)
            raise
    folder = Path("artifacts/checks")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{stage}.json", report)
    print(f"{stage}: {len(report['expectations'])} expectations met, {report['rows']} rows")
    gc.freeze()  # nothing is left to do: no last search through Great Expectations for garbage, half a second


if __name__ == "__main__":
    run_stage(main)
