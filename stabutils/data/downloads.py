"""Published files: from a local folder, else the user's cache, else the publisher's address."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sys
import tarfile
import tempfile
import zlib
from pathlib import Path

from stabutils.data.tables import read_bytes
from stabutils.errors import InputError


def find(file: str, sha256: str, address: str, member: str = "") -> Path:
    """A published file with the right checksum, wherever it lies.

    Parameters
    ----------
    file
        Its place in a folder of corpora: corpus/name.
    sha256
        Its checksum, 64 hex digits.
    address
        Where its publisher has it: a folder that ends in "/", or an archive.
    member
        Its name inside of the archive.

    Raises
    ------
    InputError
        A local file of another content, or a download that fails.
    """
    folder = os.environ.get("STABUTILS_DATA")
    if folder and not os.path.isdir(folder):
        raise InputError("STABUTILS_DATA", folder, "a folder that exists")
    if not folder or not os.path.isfile(os.path.join(folder, file)):
        return _download(file, sha256, address, member)
    path = Path(folder, file)
    if hashlib.sha256(read_bytes(path)).hexdigest() != sha256:
        allowed = f"the published file, SHA-256 {sha256}; without one here it is downloaded"
        raise InputError(str(path), "another content", allowed)
    return path


def _download(file: str, sha256: str, address: str, member: str) -> Path:
    """Path in the user's cache; pooch moves a file there only once its checksum was right."""
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    corpus, _, name = file.partition("/")
    archived = address.endswith(".tar.gz")
    url = address if archived else address + name
    http = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=2**16)
    fetch = _from_archive(http, member) if archived else http
    try:
        cache = pooch.os_cache("stabutils") / corpus
        return Path(pooch.retrieve(url, f"sha256:{sha256}", name, cache, downloader=fetch))
    except (OSError, ValueError, EOFError, tarfile.TarError, zlib.error) as error:
        allowed = (
            f"the published file; try again, or set STABUTILS_DATA to a folder with {file} in it"
        )
        raise InputError(url, _reason(error), allowed) from None


def _from_archive(http, name: str):
    """Downloader of one member of a tar.gz: copied as bytes, its path never used."""

    def fetch(url: str, output_file: str, pooch) -> None:
        with tempfile.TemporaryFile() as archive, open(output_file, "wb") as out:
            http(url, archive, pooch)
            archive.seek(0)
            with tarfile.open(fileobj=archive, mode="r|gz") as members:
                for member in members:
                    wanted = member.isfile() and member.name == name
                    content = members.extractfile(member) if wanted else None
                    if content is not None:
                        return shutil.copyfileobj(content, out)
        raise tarfile.ReadError(f"no file {name}")

    return fetch


def _reason(error: Exception) -> str:
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP status {error.response.status_code}"
    if isinstance(error, requests.RequestException):
        return f"no complete answer ({type(error).__name__})"
    if isinstance(error, (EOFError, tarfile.TarError, zlib.error)):
        return f"a damaged archive ({error})"
    return str(error) if isinstance(error, OSError) else "a file with another checksum"
