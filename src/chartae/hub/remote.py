"""Uploading to the Hugging Face Hub and downloading from it, with huggingface_hub."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from chartae.atomic import write_text
from chartae.checks import check_boolean
from chartae.errors import ChartaeError, CheckpointError, ConfigurationError
from chartae.hub.card import PICTURE_FILE, Card
from chartae.persistence import CONFIG_FILE, WEIGHTS_FILE, read_description, save

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = ["check_hub_id", "fetch", "is_hub_id", "push"]

CARD_FILE = "README.md"
NAME = re.compile(r"\w(?:[\w.-]{0,94}\w)?", re.ASCII)
LOGIN = 'log in with "hf auth login", or set HF_TOKEN'
TOKEN = re.compile(r"\b(?:hf_|api_|Bearer )\w+")
LONGEST = 500
"""Maximum length of a message of the hub in an error."""

Token = str | bool | None


def is_hub_id(name: str) -> bool:
    """Return whether a name can be that of a model on the hub, ``"user/name"``.

    >>> is_hub_id("ada/digits-vae"), is_hub_id("digits-vae"), is_hub_id("./runs/vae")
    (True, False, False)
    """
    parts = name.split("/")
    return (
        len(parts) == 2
        and all(NAME.fullmatch(part) for part in parts)
        and not any(mark in name for mark in ("--", ".."))
        and not name.endswith(".git")
    )


def push(
    module: Any,
    repo_id: str,
    *,
    card: Card | None = None,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    create_pr: bool = False,
    token: Token = None,
) -> str:
    """Upload a model or a sampler; see `chartae.models.configured.Configured.push_to_hub`.

    Returns:
        The URL of the commit or of the pull request.
    """
    check_hub_id(repo_id)
    check_boolean("private", private)
    check_boolean("create_pr", create_pr)
    if not isinstance(card, Card | None):
        raise ConfigurationError(
            f"card is {type(card).__name__}: expected the result of chartae.report.model_card"
        )
    if create_pr and revision is not None:
        raise ConfigurationError(
            f"create_pr=True and revision={revision!r}: a pull request has a revision of its own; "
            "expected one of them"
        )
    api = _api(token)
    with TemporaryDirectory() as place:
        folder = Path(place)
        save(module, folder)
        with _asking(repo_id, token):
            api.create_repo(repo_id, private=private, exist_ok=True)
            if private and not api.model_info(repo_id).private:
                raise ConfigurationError(
                    f"private=True: {repo_id!r} exists and is public; make it private on the hub, "
                    "or choose another name"
                )
            if revision is not None:
                api.create_branch(repo_id, branch=revision, exist_ok=True)
            if card is None and not api.file_exists(repo_id, CARD_FILE, revision=revision):
                card = Card(f"A {type(module).__name__} of chartae.")
        if card is not None:
            _write_card(card, repo_id, folder)
        with _asking(repo_id, token):
            done = api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                revision=revision,
                commit_message=message or f"Upload a {type(module).__name__} of chartae",
                create_pr=create_pr,
            )
    return str(done.pr_url or done.commit_url)


def _write_card(card: Card, repo_id: str, folder: Path) -> None:
    write_text(folder / CARD_FILE, card.text(repo_id))
    if card.figure is not None:
        card.figure.savefig(folder / PICTURE_FILE, dpi=150, facecolor="white", bbox_inches="tight")


def fetch(repo_id: str, *, revision: str | None = None, token: Token = None) -> Path:
    """Download the two files of a model, and return the folder of the cache that has them.

    Files that are in the cache are not downloaded again. If the hub cannot be reached, or with
    ``HF_HUB_OFFLINE=1``, the copy in the cache is used, and a line of the log says so.

    Args:
        repo_id: the name of the repository, ``"user/name"``.
        revision: a branch, a tag or a commit; None is the main branch.
        token: as in `push`.

    Raises:
        ConfigurationError: for a name that the hub does not allow; without huggingface_hub.
        CheckpointError: if there is no such model or revision, or it is private; if it is not one
            of chartae; if the hub cannot be reached and the cache does not have the model.
    """
    check_hub_id(repo_id)
    api = _api(token)
    with _asking(repo_id, token, revision):
        # A commit, so that both files belong together. Other files are not even listed.
        commit = api.resolve_revision(repo_id, revision=revision).resolved
        config = Path(api.hf_hub_download(repo_id, CONFIG_FILE, revision=commit))
    try:
        read_description(config)  # before the weights, which can be large
    except CheckpointError as error:
        raise CheckpointError(
            f"{repo_id!r} on the Hugging Face Hub is no model of chartae: {error}"
        ) from error
    with _asking(repo_id, token, revision):
        return Path(api.hf_hub_download(repo_id, WEIGHTS_FILE, revision=commit)).parent


def check_hub_id(repo_id: str) -> None:
    """Raise `ConfigurationError` unless a name can be that of a model on the hub."""
    if not isinstance(repo_id, str) or not is_hub_id(repo_id):
        raise ConfigurationError(
            f"repo_id={repo_id!r}: expected the name of a model on the Hugging Face Hub, as in "
            "'user/name'"
        )


def _api(token: Token) -> "HfApi":
    """Return a client of the hub.

    Raises:
        ConfigurationError: without huggingface_hub, or for a token that cannot be one.
    """
    from chartae import __version__

    if not isinstance(token, str | bool | None):
        raise ConfigurationError(f"token is {type(token).__name__}: expected text, True or False")
    if isinstance(token, str) and not re.fullmatch(r"[!-~]+", token):
        # A header cannot have it, and the HTTP client would show it.
        raise ConfigurationError("token is empty, or has spaces or characters outside of ASCII")
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise ConfigurationError(
            "the Hugging Face Hub needs huggingface_hub: pip install 'chartae[hub]'"
        ) from error
    return HfApi(token=token, library_name="chartae", library_version=__version__)


@contextmanager
def _asking(repo_id: str, token: Token, revision: str | None = None) -> Iterator[None]:
    """Turn what huggingface_hub and its HTTP client raise into errors of chartae.

    Their own errors are not chained: they hold the request, and so the token.
    """
    from huggingface_hub import errors

    try:
        yield
    except ChartaeError:
        raise
    except errors.LocalTokenNotFoundError:
        raise ConfigurationError(f"token=True: this machine has no token; {LOGIN}") from None
    except errors.GatedRepoError:
        raise CheckpointError(
            f"{repo_id!r} is gated: ask for access on its page of the Hugging Face Hub, and {LOGIN}"
        ) from None
    except errors.RepositoryNotFoundError:
        raise CheckpointError(
            f"the Hugging Face Hub has no model {repo_id!r}; if it is private, {LOGIN}"
        ) from None
    except errors.RevisionNotFoundError:
        raise CheckpointError(
            f"{repo_id!r} on the Hugging Face Hub has no revision {revision!r}"
        ) from None
    except errors.RemoteEntryNotFoundError:
        raise CheckpointError(
            f"{repo_id!r} on the Hugging Face Hub is no model of chartae: expected the files "
            f"{CONFIG_FILE} and {WEIGHTS_FILE}"
        ) from None
    except errors.HfHubHTTPError as error:
        status, reason = error.response.status_code, _text(error.server_message, token)
        hint = f"; {LOGIN}" if status in (401, 403) else ""
        raise CheckpointError(
            f"the Hugging Face Hub refuses {repo_id!r} ({status}): {reason or 'no reason'}{hint}"
        ) from None
    except (errors.LocalEntryNotFoundError, errors.RevisionResolutionError) as error:
        raise CheckpointError(
            f"the Hugging Face Hub cannot be reached, and the cache has no copy of {repo_id!r}: "
            f"{_text(error.__cause__ or error, token)}"
        ) from None
    except Exception as error:  # of the HTTP client, of the file system, or a refused card
        reasons = {f"{type(one).__name__}: {one}": one for one in (error, error.__cause__) if one}
        raise CheckpointError(
            f"the exchange with the Hugging Face Hub about {repo_id!r} failed: "
            f"{_text('; '.join(reasons), token)}"
        ) from None


def _text(message: object, token: Token) -> str:
    """Return a message of the hub in one line, without a token."""
    text = " ".join(str(message or "").split())
    if isinstance(token, str):
        text = text.replace(token, "(token)")
    text = TOKEN.sub("(token)", text)  # one of the machine
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
