"""Pages of HTML that need nothing but themselves, from the templates of this folder."""

from typing import Any

from peftbench.core.safe_text import visible


def render(template: str, **content: object) -> str:
    """A page. Every text in it is escaped: as HTML, and what a terminal would obey."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("peftbench.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**content)


def _shown(value: Any) -> Any:
    return visible(value, keep="\n") if type(value) is str else value
