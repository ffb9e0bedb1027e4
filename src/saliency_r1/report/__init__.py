"""The report: one page that can be read without a network, a table in Markdown, one picture.

build(artifacts, folder, params, root)   # index.html, results.md, overview.png in `folder`
"""

from saliency_r1.report.page import build

__all__ = ["build"]
