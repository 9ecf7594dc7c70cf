"""Polygons from anyone: no address is asked, whatever a file says, and nothing is written beside it."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared_backbones.errors import InputError
from tests.hostile import vector_bombs
from tests.hostile.formats import FORMATS
from tests.hostile.sound_files import polygons

_SAYS_AN_ADDRESS = (
    *(f"{name} named {ending}" for name in vector_bombs.OTHERS for ending in (".gpkg", ".shp", ".geojson")),
    *(f"geojson: {name}" for name in vector_bombs.PLACES),
    "geopackage: a CRS that is an address",
    "shapefile: a projection at an address",
)


@contextlib.contextmanager
def listening() -> Iterator[tuple[str, list[bytes]]]:
    """An address of this machine, and what comes in there: GDAL's own sockets are seen by no hook of Python's."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    asked.append(connection.recv(100))
                    connection.close()

        threading.Thread(target=listen, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/x", asked
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("name", _SAYS_AN_ADDRESS)
def test_no_address_in_a_file_is_asked(name: str, tmp_path: Path):
    make, read = vector_bombs.VECTOR_BOMBS[name]
    path = make(tmp_path)
    with listening() as (address, asked):
        for part in tmp_path.glob("labels.*"):
            part.write_bytes(part.read_bytes().replace(vector_bombs.ADDRESS.encode(), address.encode()))
        with pytest.raises(InputError):
            read(path)
    assert not asked


def test_the_listener_hears(tmp_path: Path):
    import pyogrio.raw

    with listening() as (address, asked):
        path = vector_bombs.VECTOR_BOMBS["geojson: a CRS at an address"][0](tmp_path)
        path.write_text(path.read_text().replace(vector_bombs.ADDRESS, address))
        pyogrio.raw.read(path)  # as it was read before
    assert asked


@pytest.mark.parametrize("beside", ["labels.gpkg-wal", "labels.gpkg-journal"])
def test_a_journal_beside_a_geopackage_is_left_alone(beside: str, tmp_path: Path):
    path = polygons(tmp_path, ".gpkg")
    before = path.read_bytes()
    (tmp_path / beside).write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(600))
    names = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match="has changes beside it"):
        FORMATS["geopackage"][1][0](path)
    assert sorted(tmp_path.iterdir()) == names and path.read_bytes() == before
