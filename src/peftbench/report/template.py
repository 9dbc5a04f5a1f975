"""Self-contained HTML pages from the templates of this folder."""

from typing import Any

from peftbench.core.text_escaping import visible


def render(template: str, **content: object) -> str:
    """Return the page of a template; HTML and control characters in texts are escaped."""
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
