"""Data sets of DICOM files, and nothing that pydicom raises on hostile ones."""

import hashlib
import io
import logging
import re
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from medvision.dicom.files import Member, Stream
from medvision.dicom.recognition import has_preamble
from shared_backbones.errors import InputError, require

if TYPE_CHECKING:
    from pydicom import Dataset

_META = 132  # byte at which a file begins to say how it is written, behind its preamble
_DEFLATED = "1.2.840.10008.1.2.1.99"
_PLAIN = {
    (True, True): "1.2.840.10008.1.2",
    (False, True): "1.2.840.10008.1.2.1",
    (False, False): "1.2.840.10008.1.2.2",
}
"""Transfer syntax of data sets that are not compressed: whether types are left out, and whether little-endian."""


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what pydicom and highdicom have to say of odd values, which may quote them, off the terminal."""
    loggers = [logging.getLogger(name) for name in ("pydicom", "highdicom")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL + 1)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def damaged(name: str, error: Exception) -> InputError:
    """The line for a file that pydicom cannot read; the error's own text may quote the header, so it is left out."""
    kind = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
    return InputError(f"{name}: is damaged or no valid DICOM ({kind}); copy or export it again, or move it away")


def read_header(member: Member, max_bytes: int, tags: Sequence[str] | None = None) -> "Dataset":
    """A file's data set without its pixels, whole or of some tags.

    Raises:
        InputError: the file is damaged.
    """
    with member.open() as stream:
        return _parsed(stream, member.name, max_bytes, pixels=False, tags=tags)


def read_whole(member: Member, max_bytes: int) -> "tuple[Dataset, str]":
    """A file's data set with its pixels as they are stored, and the sha256 of its bytes.

    Raises:
        InputError: the file is damaged.
    """
    with member.open() as stream:
        return _parsed(stream, member.name, max_bytes, pixels=True), _digest(stream)


def file_digest(member: Member) -> str:
    """The sha256 of a file's bytes."""
    with member.open() as stream:
        return _digest(stream)


def _digest(stream: Stream) -> str:
    # bytes in memory or a mapped file, neither of which is copied
    with memoryview(stream.getbuffer() if isinstance(stream, io.BytesIO) else stream) as content:
        return hashlib.sha256(content).hexdigest()


def _parsed(stream: Stream, name: str, max_bytes: int, *, pixels: bool, tags: Sequence[str] | None = None) -> "Dataset":
    pydicom = require("pydicom", "dicom")
    try:
        with quiet():
            begin = _META if has_preamble(stream.read(_META)) else 0
            stream.seek(begin)
            meta = require("pydicom.filereader", "dicom").read_dataset(
                stream, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, vr, length: tag >> 16 != 2
            )
            if str(meta.get("TransferSyntaxUID")) == _DEFLATED:
                _check_deflated(stream, name, max_bytes)
            stream.seek(0)
            dataset = pydicom.dcmread(stream, stop_before_pixels=not pixels, specific_tags=tags, force=begin == 0)
            if "TransferSyntaxUID" not in dataset.file_meta:  # as it is where files begin with their data set
                dataset.file_meta.TransferSyntaxUID = _PLAIN[dataset.original_encoding]
            return dataset
    except (InputError, MemoryError):
        raise
    except Exception as error:  # hostile bytes bring out errors of every kind
        raise damaged(name, error) from None


def _check_deflated(stream: Stream, name: str, max_bytes: int) -> None:
    """Count what a deflated data set gives before pydicom inflates it whole; the stream is behind the meta header."""
    inflater, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while not inflater.eof and (packed := stream.read(2**16)):
        while packed:
            total += len(inflater.decompress(packed, 2**22))
            packed = inflater.unconsumed_tail
            if total > max_bytes:
                raise InputError(
                    f"{name}: unpacks to more than {max_bytes / 2**30:.3g} GB; raise the limit with --max-gigabytes if "
                    "the file can be trusted"
                )
