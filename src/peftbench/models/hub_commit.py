"""Which commit of the Hugging Face Hub a model is."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from peftbench.core.registry import UserError, error_line

PATIENCE = 10.0
"""Seconds to wait for the Hub before the cache is asked."""


@cache
def commit(source: str, revision: str | None) -> str | None:
    """The commit that a revision (`main` without one) of a model means: by the Hub, or else by its client's cache.

    The configuration is fetched for it, so that the cache knows the commit when there is no network. `None` if neither
    can say. Raises `UserError` for a repository or a revision that the Hub does not have, and for one without a model.
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
    except Exception:  # the Hub's client raises errors of several libraries where it cannot be reached
        return _cached(source, revision)


def _fetched(source: str, revision: str | None, local: bool = False) -> str:
    """The commit of the configuration, whose folder is called so."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    path = hf_hub_download(source, "config.json", revision=revision, etag_timeout=PATIENCE, local_files_only=local)
    return Path(path).parent.name


def _cached(source: str, revision: str | None) -> str | None:
    """The commit that the revision meant when it was last asked for."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return _fetched(source, revision, local=True)
    except (LocalEntryNotFoundError, OSError, ValueError):
        return None


def cached_config(source: str, revision: str | None) -> dict[str, Any] | None:
    """Return the configuration of a model that the Hub's client has in its cache; none if it is not there."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(source, "config.json", revision=revision)
    return dict(json.loads(Path(path).read_bytes())) if isinstance(path, str) else None
