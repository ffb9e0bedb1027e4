"""The command line: `saliency-r1`."""
