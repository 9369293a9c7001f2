"""Take a published model from the hub of Hugging Face: config, tokenizer and safetensors, and nothing else.

A pickle (pytorch_model.bin) runs what its author wrote into it when it is opened. torch's `weights_only=True` is meant
to forbid that and has been got round before (CVE-2025-32434, torch up to 2.5), so no pickle is ever downloaded. A model
that has only one is taken as the hub's own bot converted it: the conversion waits as an open pull request, whose author
is checked, as transformers does in `safetensors_conversion.py`.

Of one commit, all files: each must have the size and the hash that the hub states for it.
"""

import hashlib
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from agents.sums import sha256_of
from agents.types import log

WANTED = ("*.json", "*.safetensors", "merges.txt")
CONVERTER = "SFconvertbot"
BESIDE_WEIGHTS = 100
"""Megabytes that a tokenizer and configs may have; Gemma's have 34."""


def snapshot(hub_id: str, folder: Path, revision: str | None, megabytes: int) -> None:
    """Bring a published model of about so many megabytes into `folder`: a commit of it, or its newest version.

    Raises OSError where the hub cannot be reached, does not let us in, has no safetensors of it, has far more than
    that, or sends other files than it states.
    """
    from huggingface_hub import model_info, snapshot_download
    from huggingface_hub.utils import httpx

    try:
        info = model_info(hub_id, revision=revision, files_metadata=True)
        if not any(file.endswith(".safetensors") for file in _stated(info)):
            info = model_info(hub_id, revision=_converted(hub_id), files_metadata=True)
        stated = _stated(info)
        bound = 1.05 * megabytes + BESIDE_WEIGHTS
        size = sum(file.size or 0 for file in stated.values()) / 1e6
        if size > bound:
            raise OSError(f"it has {size:.0f} MB, must have at most {bound:.0f}")
        if revision is None:
            log.warning(f"note: no hash of {hub_id} is known here; what the hub says of {info.sha} must do")
        snapshot_download(hub_id, revision=info.sha, allow_patterns=sorted(stated), local_dir=folder)
    except httpx.HTTPError as error:  # a lost connection is no OSError there
        raise OSError(str(error)) from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # notes of huggingface_hub
    for name, file in stated.items():
        _check(folder / name, file)


def _stated(info: Any) -> dict[str, Any]:
    """What the hub states of each file that is wanted, by name; none of them lies in a folder."""
    files = {file.rfilename: file for file in info.siblings or () if not {*"/\\"} & {*file.rfilename}}
    return {name: file for name, file in files.items() if any(fnmatch(name, pattern) for pattern in WANTED)}


def _check(file: Path, stated: Any) -> None:
    """OSError unless a file is there, with the size and hash that the hub states: git's own for small files."""
    if not file.is_file():
        raise OSError(f"{file.name} did not arrive")
    if stated.lfs is not None:
        found, must = sha256_of(file), stated.lfs.sha256
    else:
        content = file.read_bytes()
        found, must = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(), stated.blob_id
    if found != must:
        raise OSError(f"the hash of {file.name} is {found}, must be {must}, as the hub states")


def _converted(hub_id: str) -> str:
    """The revision in which the hub's bot has put safetensors beside a pickle."""
    from huggingface_hub import get_repo_discussions

    for change in get_repo_discussions(hub_id, discussion_type="pull_request", discussion_status="open"):
        if change.author == CONVERTER and "safetensors" in change.title and change.git_reference:
            return change.git_reference
    raise OSError(f"it has no safetensors, nor a conversion by {CONVERTER}; pickles are not opened")
