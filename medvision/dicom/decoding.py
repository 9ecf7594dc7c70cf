"""Decode compressed pixels in a process of its own.

Decoders are C code. Damaged frames made GDCM crash and CharLS run for ever; here either ends in one line, and what they
print is not seen. The process is this file run as a program, and imports nothing else of the suite.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import IO, Any

_SECONDS = 30.0  # for a frame, and as much again for every 4 million pixels
_END_OF_IMAGE = b"\xff\xd9"
_LOSSLESS_JPEG = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")


class DecodingError(Exception):
    """Why a frame could not be decoded."""


class Decoder:
    """Decodes frames one by one, for a `with` block; the process is started with the first."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Decoder":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def decode(self, stream: bytes, settings: Mapping[str, Any]) -> Any:
        """Stored numbers (rows, columns) of a compressed frame.

        Args:
            stream: the frame's bytes.
            settings: `syntax` (UID), `plugin` (of pydicom), and the attributes of the image pixel module by keyword.

        Raises:
            DecodingError: damaged, too slow, or the decoder crashed.
        """
        import numpy as np

        if self._process is None:
            command = [sys.executable, "-P", __file__]
            self._process = subprocess.Popen(  # noqa: S603 - this very interpreter and file
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        process = self._process
        seconds = _SECONDS * (1 + settings["Rows"] * settings["Columns"] / 4e6)
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        try:
            assert process.stdin and process.stdout  # noqa: S101 - both are pipes
            send(process.stdin, {**settings, "size": len(stream)}, stream)
            answer = json.loads(process.stdout.readline())
            content = process.stdout.read(answer.get("size", 0))
            if "error" not in answer:
                return np.frombuffer(content, answer["dtype"]).reshape(answer["shape"])
        except (OSError, ValueError):  # its end of the pipe is closed
            late = not timer.is_alive()
            self.__exit__()
            raise DecodingError(f"the decoder took over {seconds:.0f} s" if late else "the decoder crashed") from None
        finally:
            timer.cancel()
        raise DecodingError(answer["error"])


def send(stream: IO[bytes], header: Mapping[str, Any], content: bytes = b"") -> None:
    """Write a line of JSON and the bytes that it announces."""
    stream.write(json.dumps(header).encode() + b"\n" + content)
    stream.flush()


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer requests until there are no more."""
    while line := requests.readline():
        settings = json.loads(line)
        stream = requests.read(settings.pop("size"))
        try:
            values = decode_frame(stream, settings)
        except Exception as error:  # each decoder has errors of its own
            send(answers, {"error": " ".join(str(error).split())[-160:] or type(error).__name__})
            continue
        header = {"shape": values.shape, "dtype": values.dtype.str, "size": values.nbytes}
        send(answers, header, values.tobytes())


def decode_frame(stream: bytes, settings: dict[str, Any]) -> Any:
    """Stored numbers of a frame, decoded in this process."""
    import numpy as np

    syntax, plugin = settings.pop("syntax"), settings.pop("plugin")
    if syntax in _LOSSLESS_JPEG:
        import imagecodecs

        # libjpeg fills up what is missing of a frame (imagecodecs 2026.3): half a slice would pass for a whole one
        if not stream.rstrip(b"\0").endswith(_END_OF_IMAGE):
            raise ValueError("the stream ends before its image does")
        stored = imagecodecs.jpeg8_decode(stream)
        unused = stored.dtype.itemsize * 8 - settings["BitsStored"]
        signed = stored.dtype.str.replace("u", "i") if settings["PixelRepresentation"] else stored.dtype
        return np.left_shift(stored, unused).view(signed) >> unused
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.pixels.utils import iter_pixels

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    for key, value in settings.items():
        setattr(dataset, key, value)
    dataset.PixelData = encapsulate([stream])
    return next(iter_pixels(dataset, raw=True, decoding_plugin=plugin))


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
