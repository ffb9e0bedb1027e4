"""The gates: one Great Expectations suite for the table of each stage.

    report = check("sft", params)       # raises GateError with column, expectation and sample ids

`suites.py` says what is expected, `gate.py` runs it.
"""

from saliency_r1.quality.gate import GateError, check
from saliency_r1.quality.suites import SUITES

__all__ = ["SUITES", "GateError", "check"]
