"""Pages from the templates of this folder, each with its style sheet inside it."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def render(name: str, **values: Any) -> str:
    """The page that a template makes of the values; all of them are escaped unless they are markup."""
    environment = Environment(
        loader=PackageLoader("saliency_r1.report", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    style = Markup(Path(__file__).with_name("page.css").read_text(encoding="utf-8"))
    return environment.get_template(name).render(style=style, **values)
