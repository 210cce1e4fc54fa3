"""The page of a model on the Hugging Face Hub, its model card."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PICTURE_FILE", "Card"]

PICTURE_FILE = "picture.png"


@dataclass(frozen=True, eq=False)
class Card:
    """What the page of a model says.

    A model does not know its history, its metrics, the samplers that suit it or how it is drawn.
    `chartae.report.model_card` does, and fills in a card.

    Args:
        summary: sentences that tell what the model is, in Markdown.
        title: the heading; by default the name of the repository.
        usage: lines of Python that load the model and use it; ``REPO_ID`` in them stands for the
            name of the repository.
        facts: facts about the model and its training, by name.
        metrics: figures of the model, by name.
        license: an identifier of the hub, such as ``"mit"`` or ``"cc-by-4.0"``.
        task: a task of the hub, such as ``"unconditional-image-generation"``.
        tags: further tags.
        figure: a figure, written beside the page.
        caption: what the figure shows.

    >>> print(Card("A VAE of digits.", license="mit", facts={"Epochs": "20"}).text("ada/digits"))
    ---
    library_name: "chartae"
    tags: ["chartae"]
    license: "mit"
    ---
    <BLANKLINE>
    # digits
    <BLANKLINE>
    A VAE of digits.
    <BLANKLINE>
    ## Use
    <BLANKLINE>
    The package is installed by `pip install "chartae[hub]"`.
    <BLANKLINE>
    ```python
    import chartae
    <BLANKLINE>
    model = chartae.load("ada/digits")
    ```
    <BLANKLINE>
    ## About
    <BLANKLINE>
    | | |
    |---|---|
    | Epochs | 20 |
    <BLANKLINE>
    """

    summary: str
    title: str = ""
    usage: Sequence[str] = ("import chartae", "", 'model = chartae.load("REPO_ID")')
    facts: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    license: str | None = None
    task: str | None = None
    tags: Sequence[str] = ()
    figure: "Figure | None" = None
    caption: str = ""

    def text(self, repo_id: str) -> str:
        """Return the page of the repository ``repo_id`` in Markdown."""
        parts = [self._front_matter(), f"# {_inline(self.title or repo_id.partition('/')[2])}"]
        parts.append(self.summary)
        if self.figure is not None:
            parts.append(f"![{_inline(self.caption)}]({PICTURE_FILE})")
            parts.append(f"*{_inline(self.caption)}*")
        parts += self._use(repo_id)
        if self.metrics:
            figures = {name: f"{value:.4g}" for name, value in self.metrics.items()}
            parts += ["## Evaluation", _table(figures)]
        if self.facts:
            parts += ["## About", _table(self.facts)]
        return "\n\n".join(parts) + "\n"

    def _front_matter(self) -> str:
        fields: dict[str, Any] = {
            "library_name": "chartae",
            "tags": list(dict.fromkeys(["chartae", *self.tags])),
            "license": self.license,
            "pipeline_tag": self.task,
        }
        # JSON is YAML, too.
        lines = [
            f"{name}: {json.dumps(value, ensure_ascii=False)}"
            for name, value in fields.items()
            if value is not None
        ]
        return "\n".join(["---", *lines, "---"])

    def _use(self, repo_id: str) -> list[str]:
        code = "\n".join(self.usage).replace("REPO_ID", repo_id)
        return [
            "## Use",
            'The package is installed by `pip install "chartae[hub]"`.',
            f"```python\n{code}\n```",
        ]


def _table(rows: Mapping[str, str]) -> str:
    lines = [f"| {_inline(name)} | {_inline(value)} |" for name, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines])


def _inline(text: str) -> str:
    r"""Return text as one line of Markdown that shows it as it is.

    >>> print(_inline("a | b <i>"))
    a \| b \<i>
    """
    marks = str.maketrans({mark: f"\\{mark}" for mark in "\\`*_[]<|#"})
    return " ".join(text.split()).translate(marks)
