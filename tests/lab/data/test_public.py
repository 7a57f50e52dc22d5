import functools
import gc
import hashlib
import threading
from collections.abc import Iterator
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from cliplab.lab.data.fetch import DataUnavailable
from cliplab.lab.data.public import PublicFile, download

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # pooch leaves a socket open
TEXT = b"a public text\n"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A real server of a folder with one file; the address of the folder."""
    monkeypatch.setenv("CLIPLAB_DATA", str(tmp_path / "cache"))
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "text.txt").write_bytes(TEXT)
    server = HTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()
    gc.collect()


def public(url: str, content: bytes = TEXT) -> PublicFile:
    return PublicFile("text.txt", url, hashlib.sha256(content).hexdigest(), len(content), "none")


def test_a_file_is_fetched_once_and_then_comes_from_the_cache(served: str, tmp_path: Path) -> None:
    path = download(public(f"{served}/text.txt"))
    assert path.read_bytes() == TEXT
    (tmp_path / "served" / "text.txt").unlink()
    assert download(public(f"{served}/text.txt")) == path


def test_another_content_is_refused_and_not_kept(served: str, tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable, match=r"'text.txt'.*hash"):
        download(public(f"{served}/text.txt", b"something else"))
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_missing_file_gives_one_line_that_names_it(served: str) -> None:
    with pytest.raises(DataUnavailable, match=r"'text.txt' \(http.*404") as caught:
        download(public(f"{served}/no.txt"))
    assert "\n" not in str(caught.value)
