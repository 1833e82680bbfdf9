"""Cells of a notebook that speak of certain corpora only."""

from __future__ import annotations

# Tag -> the corpora that its cells speak of: published numbers and figures, strengths that were
# tuned, and planted causes. All of them speak of `assistant`, at which notebooks are committed.
CORPORA = {
    "published": ("assistant", "massive"),
    "tuned": ("assistant", "massive"),
    "planted": ("assistant",),
}


def of_corpus(notebook, dataset: str):
    """The notebook without the cells that have nothing to say of a corpus.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> cells = [SimpleNamespace(metadata={"tags": tags}) for tags in ([], ["planted"])]
    >>> len(of_corpus(SimpleNamespace(cells=cells), "mine.csv").cells)
    1
    """
    kept = []
    for cell in notebook.cells:
        tags = CORPORA.keys() & set(cell.metadata.get("tags", ()))
        if all(dataset in CORPORA[tag] for tag in tags):
            kept.append(cell)
    notebook.cells = kept
    return notebook
