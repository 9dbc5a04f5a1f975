"""Resolve revisions of Hugging Face Hub models to commits."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from peftbench.core.registry import UserError, error_line

PATIENCE = 10.0
"""Timeout of Hub requests in seconds; after it the cache is used."""


@cache
def commit(source: str, revision: str | None) -> str | None:
    """Return the commit of a revision (default `main`) from the Hub or the local cache; `None` if neither knows it.

    This fetches the configuration, so that the commit is in the cache when there is no network. Raises `UserError` if
    the Hub does not have the repository or revision, or the repository has no `config.json`.
    """
    from peftbench.models import is_commit

    if is_commit(revision):
        return revision
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    what = f"model {source}" + (f", revision '{revision}'" if revision else "")
    try:
        return _fetched(source, revision)
    except (GatedRepoError, LocalEntryNotFoundError):
        return _cached(source, revision)
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        if held := _cached(source, revision):
            return held
        raise UserError(f"{what}: the Hub does not have it, or not for you (HF_TOKEN): {error_line(error)}") from None
    except EntryNotFoundError:
        raise UserError(f"{what}: it has no config.json, so it is no model of transformers") from None
    except Exception:  # the client raises errors of several libraries if the Hub is unreachable
        return _cached(source, revision)


def _fetched(source: str, revision: str | None, local: bool = False) -> str:
    """Return the commit of the configuration, which is the name of its cache folder."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    path = hf_hub_download(source, "config.json", revision=revision, etag_timeout=PATIENCE, local_files_only=local)
    return Path(path).parent.name


def _cached(source: str, revision: str | None) -> str | None:
    """Return the commit that the cache has for the revision, or `None`."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return _fetched(source, revision, local=True)
    except (LocalEntryNotFoundError, OSError, ValueError):
        return None


def cached_config(source: str, revision: str | None) -> dict[str, Any] | None:
    """Return the configuration of a model from the Hub client's cache; `None` if it is not cached."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(source, "config.json", revision=revision)
    return dict(json.loads(Path(path).read_bytes())) if isinstance(path, str) else None
