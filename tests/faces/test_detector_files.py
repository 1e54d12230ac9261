"""Where the detector comes from, in which order, and what is said when it cannot be had. The network is a local one."""

import hashlib
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from steadface.errors import InvalidInput, NotFound, SteadfaceError, Unavailable
from steadface.faces import detector_files
from steadface.faces.detector_files import FILE, VARIABLE, cache_folder, find_detector, open_detector

from .planted import red, write_scrfd

CONTENT = b"weights" * 5000


class Server(HTTPServer):
    content = CONTENT
    status = 200
    declared: int | None = None
    asked = 0


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked += 1
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(self.server.declared or len(self.server.content)))
        self.end_headers()
        self.wfile.write(self.server.content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(detector_files, "SHA256", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(detector_files, "BYTES", len(CONTENT))
    monkeypatch.setattr(detector_files, "ADDRESS", "http://127.0.0.1:9/nobody-listens")
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as found:
        monkeypatch.setattr(detector_files, "ADDRESS", f"http://127.0.0.1:{found.server_port}/{FILE}")
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def test_option_before_environment_before_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    option, variable, cached = tmp_path / "a.onnx", tmp_path / "b.onnx", cache_folder() / FILE
    cached.parent.mkdir(parents=True)
    for path in (option, variable, cached):
        path.write_bytes(b"x")
    assert find_detector() == cached
    monkeypatch.setenv(VARIABLE, str(variable))
    assert find_detector() == variable
    assert find_detector(option) == option


def test_files_that_are_not_there_are_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound, match=r"no detector file .*a.onnx; name a YuNet or SCRFD"):
        find_detector(tmp_path / "a.onnx")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "b.onnx"))
    with pytest.raises(NotFound, match=rf"b.onnx; correct the environment variable {VARIABLE}"):
        find_detector()
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(InvalidInput, match="a pipe"):
        find_detector(tmp_path / "pipe.onnx")


def test_the_cache_is_where_xdg_says_if_that_is_a_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == tmp_path / "cache" / "steadface"
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache_folder() == tmp_path / ".cache" / "steadface"
    monkeypatch.setattr(Path, "home", staticmethod(_homeless))
    with pytest.raises(InvalidInput, match="set XDG_CACHE_HOME"):
        cache_folder()


def _homeless() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_it_is_downloaded_once_with_progress(server: Server) -> None:
    told: list[tuple[int, int]] = []
    path = find_detector(progress=lambda done, total: told.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert len(told) > 1
    assert find_detector() == path
    assert server.asked == 1
    assert [entry.name for entry in path.parent.iterdir()] == [FILE]


@pytest.mark.parametrize("content", [CONTENT[:-1] + b"!", CONTENT + b"more", CONTENT[:100]])
def test_another_file_is_never_kept(server: Server, content: bytes) -> None:
    server.content = content
    with pytest.raises(Unavailable, match=f"another file than the one known.*it was not kept.*{FILE} by hand"):
        find_detector()
    assert not cache_folder().exists()


def test_a_transfer_that_breaks_off_leaves_nothing(server: Server) -> None:
    server.content, server.declared = CONTENT[:9000], len(CONTENT)
    with pytest.raises(Unavailable, match=r"no face detector|another file"):
        find_detector()
    assert not cache_folder().exists()


def test_without_a_network_it_says_which_file_to_put_where(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.status = 503
    for address in (detector_files.ADDRESS, "http://127.0.0.1:9/nobody-listens"):
        monkeypatch.setattr(detector_files, "ADDRESS", address)
        with pytest.raises(Unavailable) as error:
            find_detector()
        for words in (FILE, address, str(cache_folder() / FILE), "--detector FILE", VARIABLE):
            assert words in str(error.value)


def test_the_kind_is_told_from_the_file_whatever_its_name(tmp_path: Path) -> None:
    detector = open_detector(write_scrfd(tmp_path / "yunet.onnx"), min_size=1)
    assert detector.detect(red(64, 64)) == [], "its second look sees nothing in the middle"


def small(path: Path, nodes: list[onnx.NodeProto], constants: dict[str, object], shape: tuple[object, ...]) -> Path:
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("shape", "factor", "match"),
    [
        ((1, 3, "h", "w"), 3000, r"holds [\d,]+ numbers at 'Tile', more than"),
        ((1, 3, 64, 64), 3000, r"holds [\d,]+ numbers at 'Tile', more than"),
        ((1, 3, 5000, 5000), 1, "looks at 5,000 x 5,000 pixels"),
    ],
)
def test_what_a_small_file_makes_large_is_refused(
    shape: tuple[object, ...], factor: int, match: str, tmp_path: Path
) -> None:
    nodes = [helper.make_node("Tile", ["x", "n"], ["t"]), helper.make_node("ReduceSum", ["t"], ["y"])]
    file = small(tmp_path / "d.onnx", nodes, {"n": np.array([1, 1, factor, factor])}, shape)
    with pytest.raises(SteadfaceError, match=match):
        open_detector(file)


def test_a_detector_that_loops_is_refused(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, kind, []) for name, kind in (("i", 7), ("c", 9), ("d", 9))]
    body = helper.make_graph([helper.make_node("Identity", ["c"], ["d"])], "body", values[:2], values[2:])
    file = small(
        tmp_path / "d.onnx",
        [helper.make_node("Loop", ["n", "on"], ["y"], body=body)],
        {"n": np.array(2**62), "on": np.array(True)},
        (1, 3, 64, 64),
    )
    with pytest.raises(SteadfaceError, match="may repeat without end"):
        open_detector(file)


def test_files_that_are_no_detectors_are_refused_when_opened(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "other",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 112, 112])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 112, 112])],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "other.onnx"
    )
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "text.onnx").write_bytes(b"<html>Sign in to continue</html>")
    for name, words in (
        ("other", "neither a YuNet nor an SCRFD"),
        ("empty", "of 0 bytes is no face detector"),
        ("text", "not a readable ONNX file|holds no network"),
    ):
        with pytest.raises(InvalidInput, match=words):
            open_detector(tmp_path / f"{name}.onnx")
