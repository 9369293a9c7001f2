"""Take a published model from the hub of Hugging Face: config, tokenizer and safetensors, and nothing else.

A pickle (pytorch_model.bin) runs what its author wrote into it when it is opened. torch's `weights_only=True` is meant
to forbid that and has been got round before (CVE-2025-32434, torch up to 2.5), so no pickle is ever downloaded. A model
that has only one is taken as the hub's own bot converted it: the conversion waits as an open pull request, whose author
is checked, as transformers does in `safetensors_conversion.py`.
"""

import shutil
from pathlib import Path

WANTED = ["*.json", "*.safetensors", "merges.txt"]
CONVERTER = "SFconvertbot"


def snapshot(hub_id: str, folder: Path) -> None:
    """Bring the newest version of a published model into `folder`.

    Raises OSError where the hub cannot be reached, does not let us in, or has no safetensors of it.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import httpx

    try:
        snapshot_download(hub_id, allow_patterns=WANTED, local_dir=folder)
        if not any(folder.glob("*.safetensors")):
            snapshot_download(hub_id, revision=_converted(hub_id), allow_patterns=WANTED, local_dir=folder)
    except httpx.HTTPError as error:  # a lost connection is no OSError there
        raise OSError(str(error)) from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # notes of huggingface_hub


def _converted(hub_id: str) -> str:
    """The revision in which the hub's bot has put safetensors beside a pickle."""
    from huggingface_hub import get_repo_discussions

    for change in get_repo_discussions(hub_id, discussion_type="pull_request", discussion_status="open"):
        if change.author == CONVERTER and "safetensors" in change.title and change.git_reference:
            return change.git_reference
    raise OSError(f"it has no safetensors, nor a conversion by {CONVERTER}; pickles are not opened")
