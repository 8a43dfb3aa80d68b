"""Contents up and down: streamed, verified, retried.

Memory is constant: a piece at a time. A download goes on where it was cut off,
if the image's store can read from an offset, else it begins again. An upload
that was cut off begins again, with a new record where Glance has not given the
old one back. :attr:`Images.stopping` ends both at the next piece.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from oslo_log import log as logging

from splitimage_driver import exceptions
from splitimage_driver.progress import Operation
from splitimage_driver.store.glance import api
from splitimage_driver.store.glance.api import Description, Images, Passing

LOG = logging.getLogger(__name__)
PIECE = 1 << 20
_ATTEMPTS, _PAUSE = 5, 1.0
#: Hashes of the image service that are checked; it names which one it has.
_KNOWN = ("sha512", "sha256", "sha384", "blake2b")


class _Reading(io.RawIOBase):
    """A file on its way up: hashed and counted as it is read.

    :param pause: seconds before its first byte
    """

    def __init__(self, content: io.BufferedReader, size: int, operation: Operation,
                 images: Images, pause: float) -> None:
        self._content, self._size, self._operation = content, size, operation
        self._images, self._pause = images, pause
        self.hash = hashlib.sha512()

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        # Without it nobody believes the length, and pieces are framed one by one.
        return self._content.tell()

    def readinto(self, buffer: Any) -> int:
        time.sleep(self._pause)
        self._pause = 0.0
        _go_on(self._images)
        count = self._content.readinto(buffer)
        self.hash.update(memoryview(buffer)[:count])
        self._operation.advance(count)
        return count

    def __len__(self) -> int:
        return self._size


def _go_on(images: Images) -> None:
    if images.stopping.is_set():
        raise exceptions.Cancelled(what="the transfer")


class Interrupted(Exception):
    """An upload that cannot go on with this record: Glance still holds it, or
    it is gone."""


def upload(images: Images, image: str, path: Path, *, store: str = "") -> Description:
    """Give an image its data.

    :param store: of Glance's; "": its default one
    :returns: its description
    :raises Cancelled: see :attr:`Images.stopping`
    :raises Interrupted: another record is needed
    :raises DigestMismatch: Glance has stored something else
    :raises QuotaExceeded: :raises CloudFailed: :raises CloudUnreachable:
    """
    size = path.stat().st_size
    failures = 0
    while True:
        try:
            with path.open("rb") as content, Operation("upload", size, subject=image) as operation:
                # Who refuses by what the head says (a quota, a state) does not read
                # the rest: sent all the same, it can break the connection before
                # the refusal has come.
                reading = _Reading(content, size, operation, images, _PAUSE * failures)
                images.put(image, reading, store=store)  # type: ignore[arg-type]
            return _stored(images.get(image), path, reading.hash.hexdigest())
        except (exceptions.AlreadyExists, exceptions.NotFound) as error:
            # Its state is not one to upload in, or somebody took its publisher for dead.
            raise Interrupted(str(error)) from error
        except (ConnectionError, Passing) as error:
            failures += 1
            LOG.info("upload of image %s broke off (%d): %s", image, failures, error)
            if failures == _ATTEMPTS:
                raise _given_up(images, "upload an image", error) from error
            try:
                found = _state(images, image, failures)
            except exceptions.NotFound as gone:
                raise Interrupted(str(gone)) from error
            if found["status"] == api.ACTIVE:  # only its answer was lost
                return _stored(found, path)
            if found["status"] != api.QUEUED:
                raise Interrupted(f"image {image} is {found['status']}") from error


def _state(images: Images, image: str, failures: int) -> Description:
    """What an image has come to, once Glance answers again, and has seen that
    the connection is broken."""
    end = time.monotonic() + api.PATIENCE
    for attempt in range(_ATTEMPTS):
        _go_on(images)
        time.sleep(_PAUSE * max(failures, attempt))
        last = attempt == _ATTEMPTS - 1 or time.monotonic() > end
        try:
            found = images.get(image)
            if last or found["status"] != api.SAVING:
                return found
        except (exceptions.CloudUnreachable, exceptions.CloudFailed):
            if last:
                raise
    raise AssertionError


def _given_up(images: Images, what: str, error: Exception) -> exceptions.SplitImageError:
    if isinstance(error, ConnectionError):
        return exceptions.CloudUnreachable(where=images.where, reason=str(error))
    return exceptions.CloudFailed(where=images.where, what=what, reason=str(error))


def verify(image: Description, algorithm: str, found: str) -> None:
    """Against Glance's own multihash, where it has one of that kind.

    :raises DigestMismatch:
    """
    if image.get("os_hash_algo") == algorithm and image.get("os_hash_value") != found:
        raise exceptions.DigestMismatch(what=f"image {image['id']}",
                                        expected=image.get("os_hash_value"), found=found)


def _stored(image: Description, path: Path, sha512: str = "") -> Description:
    """The image, if it has what was sent.

    :param sha512: of the file, where that is known
    """
    algorithm = str(image.get("os_hash_algo"))
    if algorithm in _KNOWN:
        found = sha512 if algorithm == "sha512" else ""
        if not found:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, algorithm).hexdigest()
        verify(image, algorithm, found)
    return image


def download(images: Images, image: Mapping[str, Any], destination: Path, *,
             sha256: str | None = None, limit: int | None = None) -> str:
    """Write an image's data to a new file; returns their sha256.

    :param image: its description
    :param sha256: of the data, where that is known
    :param limit: bytes that it may have at most
    :raises DigestMismatch: it is not what Glance's multihash, or ``sha256``,
        says
    :raises TooLarge: more than ``limit``
    :raises CloudFailed: :raises CloudUnreachable:
    :raises NotFound: it was deleted
    :raises Cancelled: nobody wants it any more
    """
    algorithm = image.get("os_hash_algo")
    hashes = {"sha256": hashlib.sha256()}
    if algorithm in _KNOWN:
        hashes.setdefault(algorithm, hashlib.new(algorithm))
    size = int(image.get("size") or 0)
    with destination.open("xb") as file, Operation("download", size,
                                                   subject=image["id"]) as operation:
        failures = 0
        while True:
            before = file.tell()
            try:
                for piece in _pieces(images, image["id"], file.tell()):
                    _go_on(images)
                    if limit is not None and file.tell() + len(piece) > limit:
                        raise exceptions.TooLarge(what=f"image {image['id']}", unit="bytes",
                                                  size=file.tell() + len(piece), limit=limit,
                                                  option="what made it")
                    file.write(piece)
                    for each in hashes.values():
                        each.update(piece)
                    operation.advance(len(piece))
                if file.tell() < size:
                    raise ConnectionError(f"it ended after {file.tell()} of {size} bytes")
                break
            except (ConnectionError, Passing) as error:
                failures = failures + 1 if file.tell() == before else 1
                LOG.info("download of image %s broke off at %d: %s", image["id"], file.tell(),
                         error)
                if failures == _ATTEMPTS:
                    raise _given_up(images, "download an image", error) from error
                time.sleep(_PAUSE * failures)
    if algorithm in hashes:
        verify(dict(image), str(algorithm), hashes[str(algorithm)].hexdigest())
    found = hashes["sha256"].hexdigest()
    if sha256 is not None and found != sha256:
        raise exceptions.DigestMismatch(what=f"image {image['id']}", expected=sha256, found=found)
    return found


def _pieces(images: Images, image: str, start: int) -> Iterator[bytes]:
    """What comes after the first ``start`` bytes."""
    try:
        answer = images.open(image, start=start)
    except exceptions.CloudRefused:
        if not start:
            raise
        answer = images.open(image)  # its store reads from the beginning only
    with contextlib.closing(answer):
        skip = 0 if answer.status == 206 else start
        for piece in answer.chunks(PIECE):
            if skip >= len(piece):
                skip -= len(piece)
                continue
            yield piece[skip:]
            skip = 0


def read(images: Images, image: Mapping[str, Any], scratch: Path, *, limit: int) -> bytes:
    """The data of a small image, verified.

    :param scratch: a private directory
    """
    path = scratch / f"image-{image['id']}"
    try:
        download(images, image, path, limit=limit)
        return path.read_bytes()
    finally:
        path.unlink(missing_ok=True)
