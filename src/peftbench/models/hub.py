"""Which commit of the Hugging Face Hub a model is."""

from functools import cache
from pathlib import Path

from peftbench.registry import UserError, in_a_line

PATIENCE = 10.0
"""Seconds to wait for the Hub before the cache is asked."""


@cache
def commit(source: str, revision: str | None) -> str | None:
    """The commit that a revision (`main` without one) of a model means: by the Hub, or else by its client's cache.

    `None` if neither can say. Raises `UserError` for a repository or a revision that the Hub does not have.
    """
    from peftbench.models import is_commit

    if is_commit(revision):
        return revision
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return HfApi().model_info(source, revision=revision, timeout=PATIENCE).sha
    except Exception as error:  # the Hub's client raises errors of several libraries
        if held := _cached(source, revision):
            return held
        if isinstance(error, GatedRepoError):
            return None
        if isinstance(error, RepositoryNotFoundError | RevisionNotFoundError):
            what = f"model {source}" + (f", revision '{revision}'" if revision else "")
            raise UserError(
                f"{what}: the Hub does not have it, or not for you (HF_TOKEN): {in_a_line(error)}"
            ) from None
        return None


def _cached(source: str, revision: str | None) -> str | None:
    """The commit that the revision meant when the model was last fetched."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, revision=revision, local_files_only=True)).name
    except (LocalEntryNotFoundError, OSError, ValueError):
        return None
