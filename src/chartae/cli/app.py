"""The command line: its subcommands, configuration files, and how errors become exit codes."""

import io
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from cyclopts import App, CycloptsError, Parameter
from cyclopts.config import Json, Toml

from chartae import __version__
from chartae.errors import ChartaeError, ConfigurationError, DataError

__all__ = ["app", "main", "run"]

OK, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130


def main() -> NoReturn:
    """Run the command line of this process and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code.

    The code is 0 for success, 2 for wrong usage or input, 130 after Ctrl-C, and 1 for other
    errors. If it is not 0, one line is written to standard error; a traceback only with
    ``--debug``. A subcommand may return another code, as ``augment --strict`` does.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may not support all characters
            stream.reconfigure(errors="backslashreplace")
    debug = "--debug" in arguments
    try:
        with _warnings_on_stderr():
            status: int | None = app([a for a in arguments if a != "--debug"])
        return status or OK
    except KeyboardInterrupt as error:
        return _fail(str(error) or "interrupted", INTERRUPTED)
    except Exception as error:
        if debug:
            raise
        message, code = _explain(error)
        return _fail(_in_the_commands_words(message, arguments), code)


def _explain(error: Exception) -> tuple[str, int]:
    """Return the line to print, and the exit code."""
    if isinstance(error, (ConfigurationError, DataError, CycloptsError)):
        return str(error), MISUSED
    if isinstance(error, ChartaeError):
        return str(error), FAILED
    if isinstance(error, OSError):
        return f"{error.strerror or error}: {error.filename or ''}".removesuffix(": "), FAILED
    if isinstance(error, ImportError) and isinstance(error.__cause__, ImportError):
        error = error.__cause__  # of a subcommand's module
    return f"{type(error).__name__}: {error} (--debug shows where)", FAILED


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"chartae: {' '.join(message.split())}\n")
    return code


def _in_the_commands_words(message: str, arguments: Sequence[str]) -> str:
    """Return a message with the options of the command in place of the library's arguments.

    >>> _in_the_commands_words("expected their name as x_key", ["train", "data.npz"])
    'expected their name as --x-key'
    >>> _in_the_commands_words("the option color converts them", ["train", "images"])
    '--grey, --rgb or --rgba converts them'
    """
    name = next((a for a in arguments if a in COMMANDS), None)
    if name is None or f"chartae.cli.{name}" not in sys.modules:  # it could not be imported
        return message
    message = re.sub(r"\bheader=False\b", "--no-header", message)
    message = re.sub(r"\bthe option color\b", "--grey, --rgb or --rgba", message)
    message = re.sub(r"\bpath=", "DATA=", message)
    message = re.sub(r"\baccelerator=", "--device=", message)
    flags = {argument.name for argument in app[name].assemble_argument_collection()}
    for flag in sorted(flags - {"*"}, key=len, reverse=True):
        option = flag.removeprefix("--").replace("-", "_")
        message = re.sub(rf"(?<![\w.-]){option}=True\b", flag, message)
        message = re.sub(rf"\bthe option {option}\b", flag, message)
        pattern = option if "_" in option else rf"{option}(?==)"
        message = re.sub(rf"(?<![\w.-]){pattern}(?![\w/]|\.\w)", flag, message)
    return message


@contextmanager
def _warnings_on_stderr() -> Iterator[None]:
    """Print the library's warnings as lines on standard error while a command runs."""
    logger, handler = logging.getLogger("chartae"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("chartae: %(message)s"))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _from_file(app: App, commands: tuple[str, ...], arguments: Any) -> None:
    """Add the options of the ``--config`` file that are not on the command line."""
    given = [a.tokens[-1].value for a in arguments if a.name == "--config" and a.tokens]
    if not given:
        return
    path = Path(given[0])
    formats = {".toml": Toml, ".json": Json}
    if path.suffix not in formats or not path.is_file():
        raise ConfigurationError(f"config={str(path)!r}: expected an existing .toml or .json file")
    try:
        formats[path.suffix](path)(app, commands, arguments)
    except CycloptsError as error:
        if error.msg is None:  # a wrong option in a file that is not damaged
            raise
        raise ConfigurationError(f"config={str(path)!r} cannot be used: {error.msg}") from error


app = App(
    name="chartae",
    help="Generative autoencoders, and data augmentation from few labelled examples.",
    help_epilogue=(
        "Try it: chartae demo. Options can also be written in a .toml or .json file, in a table "
        "with the name of the subcommand; give the file as --config. MODEL can be a model on the "
        "Hugging Face Hub, user/name or user/name@revision. --debug shows the traceback of an "
        "error."
    ),
    version=__version__,
    config=_from_file,
    default_parameter=Parameter(negative=()),
    exit_on_error=False,
    print_error=False,
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)
COMMANDS = {
    "train": (
        "Train a model on DATA and save it in a folder.\n\n"
        "With --longitudinal, DATA are individuals with several visits, and a report is written "
        "beside the model.",
        "chartae train digits.npz --out digits-vae --model vae --latent-dim 8 --epochs 200",
    ),
    "sample": (
        "Draw observations from MODEL and write them to a file.\n\n"
        "In an .npz file they have the dtype and the layout of the training data of "
        '"chartae train" or "chartae augment".',
        "chartae sample digits-vae --n 64 --out digits.png",
    ),
    "augment": (
        "Learn each class of DATA from a few examples, and write new examples with labels.\n\n"
        "The output has the dtype and the layout of DATA. A warning names each class whose samples "
        "differ from its real examples: the class has collapsed, samples are copies, or samples "
        "gather around a few examples. The command also writes OUT.json, with the options and the "
        "comparison of samples to real examples; OUT-models, with one folder per class (with "
        '--conditional one folder "all"), which "chartae sample" reads; and OUT.html with '
        "--report.",
        "chartae augment scans/ --per-class 1000 --out synthetic.npz --report",
    ),
    "interpolate": (
        "Compute the geodesic from observation A to observation B, and the straight line.",
        "chartae interpolate digits-vae digits.npz:0 digits.npz:7 --data digits.npz --out path.png",
    ),
    "explore": (
        "Explore the latent space of MODEL in a browser, or write it to one HTML page.\n\n"
        "The map shows the codes of DATA over the log-volume. Point at it to see the decoded "
        "observation and its neighbours, click for geodesics and the exponential map, compare "
        "samplers, and edit observations by their attributes. For a model of follow-ups it shows "
        "trajectories and futures.",
        "chartae explore digits-vae digits.npz",
    ),
    "impute": (
        "Complete individuals of DATA with the values that were not observed, from MODEL.\n\n"
        "MODEL is a model of follow-ups. The output has the form of DATA, with intervals.",
        "chartae impute scores-model scores.csv --out completed.csv",
    ),
    "futures": (
        "Predict individuals of DATA at given times, from MODEL.\n\n"
        "MODEL is a model of follow-ups. The output has the form of DATA, with intervals.",
        "chartae futures scores-model scores.csv --after 0.5,1,2 --out in-two-years.csv",
    ),
    "generate": (
        "Draw new individuals with several visits from MODEL, and write them to a file.\n\n"
        "MODEL is a model of follow-ups. The output has the form of its training data.",
        "chartae generate scores-model --times 0,1,2,3 --n 500 --out new.csv",
    ),
    "evaluate": (
        "Evaluate MODEL on DATA: reconstruction, generation, classification, clustering and "
        "interpolation.",
        "chartae evaluate digits-vae test.npz --train digits.npz --out digits-vae.html",
    ),
    "benchmark": (
        "Train many models on DATA, and rank them on five tasks.\n\n"
        "The tasks are those of evaluate. Configurations and samplers are chosen on validation "
        "data, and reported figures are measured on test data. The folder has a report, a table of "
        "all figures, and the finished runs. After an interruption, start the same command again: "
        "it continues. Several machines can work in one folder at once.",
        "chartae benchmark digits.npz --models vae,ae,wae --epochs 100 --out digits-benchmark",
    ),
    "tune": (
        "Look for the configuration of a model with the best figure on validation data.\n\n"
        "The validation data are a part of DATA. Optuna proposes the latent dimension, the "
        "learning rate, the batch size, and the arguments that the thesis varies for the model. "
        "What an option gives is fixed, as in --latent-dim 8. Bad trials are stopped early. The "
        "folder has the best model, a table of all trials, a report, and the options with which "
        "train makes the best model again. The same command goes on after an interruption, also "
        "from several machines at once.",
        "chartae tune digits.npz --model betavae --trials 50 --workers 2 --out digits-tuned",
    ),
    "study": (
        "Find out whether augmentation helps classifiers on DATA.\n\n"
        "Methods make synthetic training sets, with and without models. Classifiers are trained on "
        "real, on real and synthetic, and on synthetic data, and tested on held-out data. The "
        "report says in words whether synthetic data help more than methods without a model, "
        "whether they harm, whether they can replace the real data, and whether they are copies. "
        "After an interruption, start the same command again: it continues.",
        "chartae study scans/ --test other-scans/ --per-class 40 --out scans-study",
    ),
    "push": (
        "Upload MODEL to the Hugging Face Hub, with a page about it.\n\n"
        "The page has a picture of samples, the training, and a license and figures if they are "
        "given. Only the model and its page are uploaded, not the data. Log in before with "
        '"hf auth login", or set HF_TOKEN. Models of the hub can be the MODEL of all commands.',
        "chartae push digits-vae user/digits-vae --license mit --private",
    ),
    "doctor": (
        "Print versions and devices, and what is missing with the command that installs it.",
        "chartae doctor",
    ),
    "demo": (
        "Augment ten handwritten digits per class, and report the effect on four classifiers."
        "\n\nThe digits are those of scikit-learn. The geometry-aware autoencoder is compared "
        "with a plain one, SMOTE and Gaussian noise, on some 1,350 digits that are used neither "
        "for training nor for tuning. The demo takes a few minutes.",
        "chartae demo --out chartae-demo, then open chartae-demo/report.html",
    ),
}
"""Help and an example of each subcommand. They are here because its module imports torch."""
for name, (text, example) in COMMANDS.items():
    # The module is imported only when the subcommand runs or shows its own help.
    app.command(f"chartae.cli.{name}:{name}", help=text, help_epilogue=f"Example: {example}")
