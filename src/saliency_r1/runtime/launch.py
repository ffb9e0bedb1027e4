"""Start a stage in several processes of this machine.

    python -m saliency_r1.runtime.launch --nproc-per-node 2 stages/sft.py

It is `torchrun --standalone`, which ends all processes when one of them fails, and it dies with the DVC that has
started it: a killed `dvc repro` or a cancelled flow leaves no process behind. On a cluster, `launch` in params.yaml can
as well be `torchrun` or `accelerate launch` with their own options. Whichever it is, the stage runs the code of its own
tree (stages/own_tree.py).
"""

import logging
import os
import sys

from saliency_r1.runtime.parent import die_with_program


def main() -> None:
    """Run the script named on the command line; leaves with 1 when a process failed, which has then said why."""
    die_with_program()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a stage sets its threads itself; torchrun warns without
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as run

    # The stage itself prints one line when it is interrupted.
    for part in ("multiprocessing.api", "agent.server.api"):
        logging.getLogger(f"torch.distributed.elastic.{part}").setLevel(logging.ERROR)
    try:
        run(["--standalone", *sys.argv[1:]])
    except ChildFailedError as error:
        codes = sorted({failure.exitcode for failure in error.failures.values()})
        print(f"a process of the stage ended with exit code {', '.join(map(str, codes))}", file=sys.stderr)
        sys.exit(1)
    except SignalException as error:
        sys.exit(128 + error.sigval)


if __name__ == "__main__":
    main()
