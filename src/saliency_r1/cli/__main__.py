"""`python -m saliency_r1.cli` is `saliency-r1`."""

from saliency_r1.cli import main

main()
