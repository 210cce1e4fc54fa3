"""Writes one page for each model, and their index, from the code: ``docs/models/``.

    python docs/generate_models.py                     # the pages
    python docs/generate_models.py --pictures          # and the pictures, a few minutes
    python docs/generate_models.py --pictures VAE AE   # those of two models

A page has the model's docstring, its arguments, an example that runs, and the samplers that support
the model. `RECIPES` has the options of the examples. `tests/test_model_pages.py` checks that the
pages match the code.
"""

import argparse
import inspect
import re
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, get_args

import torch

import chartae
from chartae import samplers
from chartae.data import digits
from chartae.models import VAE, Autoencoder, VariationalAutoencoder
from chartae.samplers import SAMPLERS, Sampler, compatible_samplers

FOLDER = Path(__file__).parent / "models"
NOTICE = "<!-- written by docs/generate_models.py: edit the docstring instead -->"
SHAPE = (8, 8)


def public_models() -> dict[str, type[Autoencoder]]:
    """Return the models that are importable from `chartae`, by name."""
    found = {name: getattr(chartae, name) for name in sorted(chartae.__all__, key=str.lower)}
    return {
        name: item
        for name, item in found.items()
        if isinstance(item, type) and issubclass(item, Autoencoder)
    }


@dataclass(frozen=True)
class Recipe:
    """The options of the example and the picture of a model.

    Attributes:
        latent_dim: size of the latent space.
        options: other arguments of the constructor, as source code.
        sampler: the sampler of the example and the picture.
        sampler_options: arguments of the sampler in the example, which must be fast.
        epochs: epochs of training for the picture.
        kl_warmup: epochs of the KL warm-up for the picture.
    """

    latent_dim: int = 2
    options: str = ""
    sampler: str = "NormalSampler"
    sampler_options: str = ""
    epochs: int = 150
    kl_warmup: int = 0


# Images of 8 x 8 pixels have few nats. With stronger penalties the latents would not be used.
RECIPES = {
    "AE": Recipe(sampler="MixtureSampler"),
    "BetaVAE": Recipe(options="beta=0.5"),
    "CVAE": Recipe(options="conditions=10"),
    "DisentangledBetaVAE": Recipe(options="capacity=3.0, warmup=1"),
    "HRQVAE": Recipe(16, "grid=(2, 2), num_levels=2", "CodeSampler", "epochs=1"),
    "MixtureVAE": Recipe(sampler="VampSampler"),
    "PoincareVAE": Recipe(sampler="PoincareSampler"),
    "RAE": Recipe(sampler="MixtureSampler"),
    "RHVAE": Recipe(sampler="VolumeSampler"),
    "SVAE": Recipe(3, sampler="SphereSampler"),
    "VAEGAN": Recipe(sampler="MixtureSampler"),
    "VAMP": Recipe(sampler="VampSampler"),
    "VQVAE": Recipe(16, "grid=(2, 2), num_codes=64", "CodeSampler", "epochs=1"),
}

WORKS = {
    "Burda et al., 2016": "Importance Weighted Autoencoders. ICLR. arXiv:1509.00519",
    "Burgess et al., 2018": "Understanding disentangling in beta-VAE. arXiv:1804.03599",
    "Caterini et al., 2018": "Hamiltonian Variational Auto-Encoder. NeurIPS. arXiv:1805.11328",
    "Chadebec et al., 2020": "Geometry-Aware Hamiltonian Variational Auto-Encoder. "
    "arXiv:2010.11518",
    "Chen et al., 2018": "Isolating Sources of Disentanglement in Variational Autoencoders. "
    "NeurIPS. arXiv:1802.04942",
    "Davidson et al., 2018": "Hyperspherical Variational Auto-Encoders. UAI. arXiv:1804.00891",
    "Ghosh et al., 2020": "From Variational to Deterministic Autoencoders. ICLR. arXiv:1903.12436",
    "Higgins et al., 2017": "beta-VAE: Learning Basic Visual Concepts with a Constrained "
    "Variational Framework. ICLR",
    "Hosking et al., 2022": "Hierarchical Sketch Induction for Paraphrase Generation. ACL. "
    "arXiv:2203.03463",
    "Hutchinson, 1989": "A stochastic estimator of the trace of the influence matrix for Laplacian "
    "smoothing splines. Communications in Statistics - Simulation and Computation",
    "Jiang et al., 2017": "Variational Deep Embedding: An Unsupervised and Generative Approach to "
    "Clustering. IJCAI. arXiv:1611.05148",
    "Kim and Mnih, 2018": "Disentangling by Factorising. ICML. arXiv:1802.05983",
    "Kingma and Welling, 2014": "Auto-Encoding Variational Bayes. ICLR. arXiv:1312.6114",
    "Kingma et al., 2016": "Improved Variational Inference with Inverse Autoregressive Flow. "
    "NeurIPS. arXiv:1606.04934",
    "Larsen et al., 2016": "Autoencoding beyond pixels using a learned similarity metric. ICML. "
    "arXiv:1512.09300",
    "Makhzani et al., 2016": "Adversarial Autoencoders. arXiv:1511.05644",
    "Mathieu et al., 2019": "Continuous Hierarchical Representations with Poincare Variational "
    "Auto-Encoders. NeurIPS. arXiv:1901.06033",
    "Nagano et al., 2019": "A Wrapped Normal Distribution on Hyperbolic Space for Gradient-Based "
    "Learning. ICML. arXiv:1902.02992",
    "Rainforth et al., 2018": "Tighter Variational Bounds are Not Necessarily Better. ICML. "
    "arXiv:1802.04537",
    "Rezende and Mohamed, 2015": "Variational Inference with Normalizing Flows. ICML. "
    "arXiv:1505.05770",
    "Snell et al., 2017": "Learning to Generate Images with Perceptual Similarity Metrics. ICIP. "
    "arXiv:1511.06409",
    "Rybkin et al., 2021": "Simple and Effective VAE Training with Calibrated Decoders. ICML. "
    "arXiv:2006.13202",
    "Sohn et al., 2015": "Learning Structured Output Representation using Deep Conditional "
    "Generative Models. NeurIPS",
    "Tolstikhin et al., 2018": "Wasserstein Auto-Encoders. ICLR. arXiv:1711.01558",
    "Tomczak and Welling, 2018": "VAE with a VampPrior. AISTATS. arXiv:1705.07120",
    "van den Oord et al., 2017": "Neural Discrete Representation Learning. NeurIPS. "
    "arXiv:1711.00937",
    "Wang et al., 2003": "Multiscale structural similarity for image quality assessment. Asilomar "
    "Conference on Signals, Systems and Computers",
    "Zhao et al., 2019": "InfoVAE: Balancing Learning and Inference in Variational Autoencoders. "
    "AAAI. arXiv:1706.02262",
}


# --- from docstrings ------------------------------------------------------------------------------


def to_markdown(text: str) -> str:
    """Return the reStructuredText of a docstring as Markdown."""
    if text.startswith(".. math::"):
        lines = text.removeprefix(".. math::").splitlines()
        formula = "\n".join(line.strip() for line in lines).strip()
        if r"\\" in formula:
            formula = f"\\begin{{aligned}}\n{formula}\n\\end{{aligned}}"
        return f"$$\n{formula}\n$$"
    text = re.sub(r":math:`([^`]+)`", r"$\1$", text)
    return text.replace("``", "`")


def prose(item: type) -> list[str]:
    """Return the paragraphs and equations of a docstring, up to its first section."""
    blocks = inspect.cleandoc(item.__doc__ or "").split("\n\n")
    section = re.compile(r"(Args|Attributes|Raises|Returns):\n|>>> ")
    ends = [index for index, block in enumerate(blocks) if section.match(block)]
    return [to_markdown(block) for block in blocks[: min(ends, default=len(blocks))]]


def accepted(model: type[Autoencoder]) -> set[str]:
    """Return the names of the arguments of a model, with those that its options declare."""
    parameters = inspect.signature(model).parameters.values()
    options = [get_args(p.annotation)[0] for p in parameters if p.kind is p.VAR_KEYWORD]
    declared = {name for kind in options for name in kind.__annotations__}
    return declared | {p.name for p in parameters}


def arguments(model: type[Autoencoder]) -> dict[str, str]:
    """Return the text for each argument, from docstring and signature, with those of the base."""
    _, _, rest = inspect.cleandoc(model.__doc__ or "").partition("Args:\n")
    section = rest.split("\n\n")[0]
    entries = dict(re.findall(r"^    (\w+): (.*(?:\n     +.*)*)", section, flags=re.MULTILINE))
    inherited: dict[str, str] = {}
    if entries.pop("networks", None):
        gaussian = "posterior_covariance" in accepted(model) and model is not VariationalAutoencoder
        inherited = arguments(VariationalAutoencoder if gaussian else Autoencoder)
    elif entries.pop("options", None):
        inherited = arguments(model.__mro__[1])
    signature, own = inspect.signature(model).parameters, {}
    for name, text in entries.items():
        default = signature[name].default
        shown = "" if default is inspect.Parameter.empty else f" (`{default!r}`)"
        own[name] = f"* `{name}`{shown}: {to_markdown(' '.join(text.split()))}"
    # First the arguments that every model requires, then its own, then the other inherited ones.
    first = {name: inherited.get(name, own.get(name, "")) for name in ("input_shape", "latent_dim")}
    return first | own | {name: text for name, text in inherited.items() if name not in own}


def citations(text: str) -> list[str]:
    """Return the works that a text cites: ``"Kingma and Welling, 2014"``, each once."""
    author = r"((?:van den )?[A-Z][\w-]+(?: et al\.| and [A-Z][\w-]+)?)"
    found = re.findall(author + r"(?:, |'s \()(\d{4})\b", " ".join(text.split()))
    return list(dict.fromkeys(f"{who}, {year}" for who, year in found))


# --- pages ----------------------------------------------------------------------------------------


def build(name: str) -> Autoencoder:
    """Return the untrained model of the example."""
    recipe = RECIPES.get(name, Recipe())
    options: dict[str, Any] = eval(f"dict({recipe.options})")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Autoencoder = public_models()[name](
            SHAPE, recipe.latent_dim, likelihood="bernoulli", **options
        )
    return model


def example(name: str) -> str:
    """Return a program of some ten lines that trains the model and uses it."""
    recipe, model = RECIPES.get(name, Recipe()), build(name)
    sampler_options = f", {recipe.sampler_options}" if recipe.sampler_options else ""
    needs_data = getattr(samplers, recipe.sampler)(model).needs_data
    conditional, d = model.conditions is not None, recipe.latent_dim
    y, its_y = (", y", ", data.y") if conditional else ("", "")
    given = [str(SHAPE), f"latent_dim={d}", recipe.options, 'likelihood="bernoulli"']
    listed = ", ".join(filter(None, given))
    made = f"model = chartae.{name}({listed})"
    lines = [
        "import chartae",
        "from chartae.data import digits",
        "",
        "data = digits().subset(range(500))  # images of 8 x 8 pixels",
        made if len(made) <= 100 else f"model = chartae.{name}(\n    {listed}\n)",
        "chartae.fit(model, data, epochs=3, seed=0, progress=False)",
        "",
        "x, y = data.x[:10], data.y[:10]" if conditional else "x = data.x[:10]",
        f"z = model.encode(x{y})  # (10, {d})",
        f"x_hat = model.decode(z{y})  # (10, 8, 8)",
    ]
    if isinstance(model, VariationalAutoencoder):
        lines.append(
            f"nats = model.log_likelihood(x, 100{', y=y' if conditional else ''})  # (10,)"
        )
    lines += [
        f"sampler = chartae.{recipe.sampler}(model{sampler_options})"
        + (f".fit(data.x{its_y})" if needs_data else ""),
        f"x_new = sampler.sample(16, seed=0{', y=7' if conditional else ''})  # (16, 8, 8)",
    ]
    return "\n".join(lines)


def page(name: str) -> str:
    """Return the page of a model."""
    model = public_models()[name]
    paragraphs = prose(model)
    works = [f"* {work}. {WORKS[work]}." for work in citations(" ".join(paragraphs))]
    served = [
        f"* `{s.__name__}`: {prose(s)[0].splitlines()[0]}" for s in compatible_samplers(build(name))
    ]
    blocks = [
        NOTICE,
        f"# {name}",
        *paragraphs,
        f"![Digits, reconstructions, samples and latents of a {name}]({name}.png)",
        "## Arguments",
        "\n".join(arguments(model).values()),
        "## Example",
        f"```python\n{example(name)}\n```",
        "## Samplers",
        "\n".join(served),
        *(["## Reference", "\n".join(works)] if works else []),
        "[All models](README.md)",
    ]
    return "\n\n".join(blocks) + "\n"


def traits(name: str) -> tuple[str, str, str, str]:
    """Return the latent space, posterior, prior and objective of a model."""
    model = build(name)
    losses = (VariationalAutoencoder.loss, VAE.loss)
    # A weighted divergence is an objective of its own, too.
    plain = getattr(model, "weighted", None) in (None, VAE.weighted.__get__(model))
    objective = "ELBO" if type(model).loss in losses and plain else "its own"
    posterior, prior = model.posterior_family, model.prior_family
    if posterior is None or prior is None:
        return model.latent_space, "none", "none", objective
    flows = type(model).log_weight_terms is not VariationalAutoencoder.log_weight_terms
    kind = f"`{posterior.__name__}`" + (" and a Hamiltonian flow" if flows else "")
    return model.latent_space, kind, f"`{prior.__name__}`", objective


def index() -> str:
    """Return the page that lists the models."""
    rows = [
        f"| [{name}]({name}.md) | {' | '.join(traits(name))} "
        f"| {'; '.join(citations(prose(model)[0]))} |"
        for name, model in public_models().items()
    ]
    blocks = [
        NOTICE,
        "# Models",
        "A model has a posterior, a prior, a likelihood and an objective. Any model accepts any\n"
        "likelihood, any networks, and conditions. The table gives the defaults of each model.\n"
        "*ELBO* is the evidence lower bound. The pages of the models give the other objectives.",
        "\n".join(
            [
                "| model | latents | posterior | prior | objective | reference |",
                "|---|---|---|---|---|---|",
                *rows,
            ]
        ),
        "## Which sampler supports which model",
        sampler_table(),
    ]
    return "\n\n".join(blocks) + "\n"


def sampler_table() -> str:
    """Return the table of which sampler supports which model."""
    classes = list(SAMPLERS.values())
    rows = [["model", *(cls.__name__ for cls in classes)], ["---"] * (len(classes) + 1)]
    for name in public_models():
        compatible = compatible_samplers(build(name))
        rows.append([name, *("yes" if cls in compatible else "" for cls in classes)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def pages() -> dict[str, str]:
    """Return the text of every page by its file's name."""
    return {f"{name}.md": page(name) for name in public_models()} | {"README.md": index()}


# --- pictures -------------------------------------------------------------------------------------


def picture(name: str, path: Path) -> None:
    """Train the model of the example on digits, and draw reconstructions, samples and latents."""
    from matplotlib.figure import Figure
    from PIL import Image

    from chartae.report.figures import draw_observations
    from chartae.report.latent import Chart, Plane, draw_codes, draw_frame

    data, model, recipe = digits(), build(name), RECIPES.get(name, Recipe())
    y = data.y if model.conditions is not None else None
    training = {"epochs": recipe.epochs, "kl_warmup": recipe.kl_warmup}
    chartae.fit(model, data, **training, seed=0, progress=False)
    sampler: Sampler = getattr(samplers, recipe.sampler)(model)
    if sampler.needs_data:
        sampler.fit(data.x, y)
    first = None if y is None else y[:10]
    with torch.no_grad():
        codes = model.encode(data.x, y)
        strips = {
            "digits": data.x[:10],
            "reconstructions": model.reconstruct(data.x[:10], first),
            "samples": sampler.sample(20, seed=0, y=None if first is None else first.repeat(2)),
        }
    figure = Figure((8.4, 2.9), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.35, 1.0))
    rows = left.subplots(len(strips), height_ratios=[len(x) // 10 for x in strips.values()])
    for axes, (title, x) in zip(rows, strips.items(), strict=True):
        draw_observations(axes, x.numpy(), 10, 0.0, 1.0)
        axes.set_title(title, fontsize="small", loc="left")
    axes, plane = right.subplots(), Plane(codes)
    draw_codes(axes, Chart(codes, data.y, class_names=data.class_names), plane, size=8.0)
    draw_frame(axes, plane, plane.square(100, codes))
    axes.legend(
        loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, handletextpad=0.0,
        fontsize="small", markerscale=2.0,
    )  # fmt: skip
    buffer = BytesIO()
    figure.savefig(buffer, dpi=80)
    # A palette of 128 colours gives a third of the file size, and the picture looks the same.
    image = Image.open(buffer).convert("RGB").quantize(128, method=Image.Quantize.MAXCOVERAGE)
    image.save(path, optimize=True)


def main() -> None:
    """Write the pages, and the pictures of the models given with ``--pictures``."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", nargs="*", metavar="MODEL", help="without a name, all models")
    asked = parser.parse_args().pictures
    names = list(public_models())
    if unknown := set(asked or ()) - set(names):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    FOLDER.mkdir(exist_ok=True)
    for file, text in pages().items():
        (FOLDER / file).write_text(text, encoding="utf-8")
    if asked is not None:
        for name in asked or names:
            picture(name, FOLDER / f"{name}.png")


if __name__ == "__main__":
    main()
