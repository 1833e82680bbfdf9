"""The study as pages that need no network: `make site` writes site/ from README, docs and the
executed notebooks.
"""

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
