"""Templates of the package, filled in: a report as one page that needs no network."""

from __future__ import annotations


def render(template: str, **fields) -> str:
    """A template of the package, filled in; text is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("stabutils", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(fields)
