"""``chartae push``: a trained model on the Hugging Face Hub."""

import json
from pathlib import Path

from chartae.checks import check_integer
from chartae.cli.options import ConfigFile, DataOptions
from chartae.cli.output import print_lines
from chartae.cli.trained import Trained
from chartae.errors import ConfigurationError, DataError
from chartae.evaluation import METRICS
from chartae.hub import check_hub_id
from chartae.loading import load
from chartae.report import model_card
from chartae.training import HISTORY_FILE, History

__all__ = ["push"]


def push(
    model: Path,
    repo_id: str,
    *,
    license: str | None = None,
    title: str = "",
    about: str = "",
    metrics: Path | None = None,
    data: Path | None = None,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    create_pr: bool = False,
    seed: int = 0,
    data_options: DataOptions = DataOptions(),
    config: ConfigFile = None,
) -> None:
    """Run the subcommand.

    Args:
        model: Folder of a trained model or a fitted sampler.
        repo_id: Name on the hub, user/name. The repository is created if it does not exist.
        license: License of the model, by its identifier on the hub, as mit or cc-by-4.0.
        title: Heading of the page. [default: the name of the repository]
        about: Text about the data, the purpose and the limits of the model, in Markdown.
        metrics: Figures for the page: a .json file of "chartae evaluate".
        data: Images that may be public: the page shows the first ones and their reconstructions,
            in place of samples.
        private: Make a new repository private.
        revision: Branch, which is created if it does not exist. [default: main]
        message: Message of the commit.
        create_pr: Open a pull request.
        seed: Seed of the samples on the page.
    """
    check_integer("seed", seed, minimum=0)
    if not model.is_dir():
        raise ConfigurationError(f"MODEL={str(model)!r}: expected the folder of a trained model")
    check_hub_id(repo_id)  # before samples are drawn, which can take a while
    loaded = load(model)
    x = y = None
    if data is not None:
        trained = Trained.read(model)
        source = trained.as_learned(data_options.read(data), "DATA")
        x, y = source.x.to(loaded.dtype), trained.conditions(source)
    history = model / HISTORY_FILE
    card = model_card(
        loaded,
        title=title,
        about=about,
        license=license,
        history=History.load(history) if history.is_file() else None,
        metrics={} if metrics is None else _figures(metrics),
        data=x,
        y=y,
        seed=seed,
    )
    url = loaded.push_to_hub(
        repo_id,
        card=card,
        private=private,
        revision=revision,
        message=message,
        create_pr=create_pr,
    )
    print_lines(f"{type(loaded).__name__}: {url}")


def _figures(path: Path) -> dict[str, float]:
    """Return the figures on test data of a file of ``chartae evaluate``, by their titles."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        groups = {"": content["figures"], **content["samplers"]}
        return {
            f"{METRICS[name].title}{f' ({sampler} sampler)' if sampler else ''}": value
            for sampler, figures in groups.items()
            for name, value in figures["test"].items()
            if value is not None
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"metrics={str(path)!r}: expected a .json file of chartae evaluate ({error})"
        ) from error
