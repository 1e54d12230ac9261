"""What is not a file of weights is told by its bytes, whatever its name, and each kind has its own message."""

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from safetensors.torch import save_file

from steadface.backbones import load_backbone, read_metadata
from steadface.backbones.filekinds import ONNX, SAFETENSORS, SHOWN, TORCH, file_kind, shown
from steadface.errors import SteadfaceError
from steadface.recognizers import open_recognizer
from steadface.recognizers.contract import read_contract

from .networks import SMALL, same, trained

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 261240000\n"
HTML = b"\n<!DOCTYPE html><html><head><title>Google Drive - Virus scan\nwarning</title></head>" + b"<p>x</p>" * 9999


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"1")
    return file.getvalue()


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("backbone.pth"), io.BytesIO())
    return file.getvalue()


def arrays() -> bytes:
    file = io.BytesIO()
    np.savez(file, conv1=np.zeros(3))
    return file.getvalue()


def onnx_graph() -> bytes:
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 16, 16])
    node = helper.make_node("Flatten", ["images"], ["embeddings"])
    outputs = [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, None)]
    model: onnx.ModelProto = helper.make_model(helper.make_graph([node], "graph", [images], outputs))
    return model.SerializeToString()


KINDS = {
    "empty": (b"", "is empty: .*fetch it again"),
    "lfs": (LFS, "is a Git LFS pointer for a file of 261240000 bytes, not weights: .*git lfs pull"),
    "annex": (b"/annex/objects/SHA256E-s12--ab.pth\n", "is a git-annex pointer.*git annex get"),
    "html": (HTML, r'is an HTML page \("Google Drive - Virus scan warning"\), not weights: the download went wrong'),
    "html with a mark": (b"\xef\xbb\xbf<html><body>Sign in</body></html>", "is an HTML page, not weights"),
    "xml": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is XML .*AccessDenied"),
    "json": (b'{"error":"Invalid username or password."}', "is JSON .*Invalid username.*a server's answer"),
    "index": (b'{"metadata": {}, "weight_map": {"a": "model-1.safetensors"}}', "the index of weights in several files"),
    "symbol": (b'{"nodes": [{"op": "null", "name": "data"}]}', "the graph of an MXNet model"),
    "text": (b"Entry not found", 'is text .*"Entry not found".*fetch the file itself'),
    "params": (b"\x12\x01" + bytes(30), "a file of MXNet parameters.*convert it to ONNX"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(90), "is an HDF5 file, as Keras.*convert it to ONNX"),
    "npy": (b"\x93NUMPY\x01\0v\0{'descr'", "is a NumPy array"),
    "npz": (arrays(), r"archive of NumPy arrays \(.npz: conv1.npy\): .*save_file"),
    "graph": (b"\n\x2a\n\x05input\x12\x0bPlaceholder*\x0b\n\x05dtype", "is a TensorFlow graph"),
    "saved model": (b"\x08\x01\x12\xab\x85\x02\n\x9f", "is a TensorFlow graph"),
    "tflite": (b"\x1c\0\0\0TFL3\x14\0", "is a TensorFlow Lite model"),
    "ncnn graph": (b"7767517\n5 5\nInput data 0 1 data\n", "the graph of an ncnn model"),
    "ncnn half": (b"\x47\x6b\x30\x01" + bytes(range(99)), "the weights of an ncnn model"),
    "gzip": (gzip.compress(b"weights"), "is a gzip archive: unpack it"),
    "bzip2": (bz2.compress(b"weights"), "is a bzip2 archive: unpack it"),
    "xz": (lzma.compress(b"weights"), "is an xz archive: unpack it"),
    "tar": (tarred(), "is a tar archive: unpack it"),
    "zip": (zipped("backbone.pth", "a.txt", "b", "c"), "is a zip archive of backbone.pth, a.txt, b, ...: unpack it"),
    "empty zip": (zipped(), "is a zip archive of nothing"),
    "truncated zip": (zipped("archive/data.pkl")[:40], "is a truncated zip archive"),
    "keras": (zipped("metadata.json", "config.json", "model.weights.h5"), "is a Keras model"),
    "exported": (zipped("m/archive_format", "m/models/model.json"), "is an exported program"),
    "jpeg": (b"\xff\xd8\xff\xe0\0\x10JFIF", "is a JPEG picture"),
    "pickle": (b"\x80\x04\x95\x1d\0\0\0\0\0\0\0}", "is a Python pickle.*was not read: unpickling can run code"),
    "bytes": (bytes(range(128, 256)), r"not a readable file of weights \(it begins with the bytes 80 81 82 83"),
    "zeros": (bytes(4096), "not a readable file of weights"),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
@pytest.mark.parametrize("ending", ["pth", "safetensors", "bin"])
def test_every_kind_has_its_own_message_under_any_name(kind: str, ending: str, tmp_path: Path) -> None:
    content, message = KINDS[kind]
    file = tmp_path / f"w.{ending}"
    file.write_bytes(content)
    with pytest.raises(SteadfaceError, match=message) as caught:
        load_backbone(file)
    assert str(file) in str(caught.value)
    assert len(str(caught.value)) < len(str(file)) + 350
    assert read_metadata(file) == {}


@every_kind
def test_what_is_certainly_no_onnx_file_is_named_too(kind: str, tmp_path: Path) -> None:
    content, message = KINDS[kind]
    file = tmp_path / "w.onnx"
    file.write_bytes(content)
    uncertain = kind in ("bytes", "zeros", "graph", "saved model")
    for read in (open_recognizer, read_contract):
        with pytest.raises(SteadfaceError, match="is not a readable ONNX file" if uncertain else message):
            read(file)


def test_an_onnx_file_under_another_name_is_named(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(onnx_graph())
    assert file_kind(tmp_path / "w.pth") == ONNX
    with pytest.raises(SteadfaceError, match=r"is an ONNX file: give it a name that ends with \.onnx"):
        open_recognizer(tmp_path / "w.pth")
    (tmp_path / "w.pth").rename(tmp_path / "w.onnx")
    with pytest.raises(SteadfaceError, match="is an ONNX file, with no layers to train: give the state dict"):
        load_backbone(tmp_path / "w.onnx")


def test_weights_named_as_an_onnx_file_are_named(tmp_path: Path) -> None:
    file, state = tmp_path / "w.onnx", trained(SMALL).state_dict()
    save_file(state, file)
    with pytest.raises(SteadfaceError, match=r"is a safetensors file: give it a name that ends with \.safetensors"):
        open_recognizer(file)
    torch.save(state, file)
    with pytest.raises(SteadfaceError, match=r"is a torch file: give it a name that ends with \.pth"):
        open_recognizer(file)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.bin", "w", "w.onnx.bak"])
def test_weights_are_read_by_their_bytes_whatever_the_name(name: str, tmp_path: Path) -> None:
    saved = trained(SMALL)
    save_file(saved.state_dict(), tmp_path / name)
    assert file_kind(tmp_path / name) == SAFETENSORS
    assert same(load_backbone(tmp_path / name), saved)
    for zipped_format in (True, False):
        torch.save(saved.state_dict(), tmp_path / name, _use_new_zipfile_serialization=zipped_format)
        assert file_kind(tmp_path / name) == TORCH
        assert same(load_backbone(tmp_path / name), saved)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torchscript_is_named(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "w.pt")
    with pytest.raises(SteadfaceError, match=r"is a TorchScript archive.*torch\.jit\.load\(FILE\)\.state_dict\(\)"):
        load_backbone(tmp_path / "w.pt")


def test_what_lies_beside_and_the_name_help_where_the_bytes_say_nothing(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(64))
    (tmp_path / "w.param").write_bytes(b"7767517\n")
    (tmp_path / "w.mnn").write_bytes(bytes(64))
    with pytest.raises(SteadfaceError, match=r"weights of an ncnn model \(its \.param lies beside it\)"):
        load_backbone(tmp_path / "w.bin")
    with pytest.raises(SteadfaceError, match="is an MNN model, by its name"):
        load_backbone(tmp_path / "w.mnn")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"1")
    (tmp_path / "w.pth").chmod(0)
    with pytest.raises(SteadfaceError, match=r"cannot read .*Permission denied"):
        load_backbone(tmp_path / "w.pth")


def test_little_of_a_file_is_repeated_and_nothing_moves_the_cursor(tmp_path: Path) -> None:
    assert shown("a\x1b[2J\nb\u202ec") == "a [2J b c"
    assert shown("x" * 10_000) == "x" * SHOWN + "..."
    (tmp_path / "w.pth").write_text(json.dumps({"error": "x" * 100_000}))
    with pytest.raises(SteadfaceError) as caught:
        load_backbone(tmp_path / "w.pth")
    assert len(str(caught.value)) < len(str(tmp_path)) + 300


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["data.pkl", "version"], "is a torch file that was unpacked: .*zip -0 -r"),
        (["saved_model.pb"], "is a TensorFlow SavedModel"),
        (
            ["b.pth", "a.onnx", "c.safetensors", "d.pt", "e.txt"],
            r"give a file in it: a\.onnx, b\.pth, c\.safetensors, ",
        ),
        (["read.me"], r"step-\*\.safetensors$"),
    ],
)
def test_a_folder_that_is_no_run_is_named(files: list[str], message: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).write_bytes(b"1")
    with pytest.raises(SteadfaceError, match=message):
        load_backbone(tmp_path)
