"""The report: one page that can be read without a network, a table in Markdown, one picture.

page.build(artifacts, folder, params, root)   # index.html, results.md, overview.png in `folder`
"""
