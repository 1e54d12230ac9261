import logging
import shutil
from pathlib import Path

import pytest
import torch

from steadface.backbones import Architecture, Backbone
from steadface.devices import resolve_device
from steadface.errors import SteadfaceError
from steadface.training.compute import Compute, FastNetwork, compute_on
from steadface.training.loop import TrainingRun
from steadface.training.recipe.sections import Run

from .runs import GATED, tiny

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def tiny_backbone() -> Backbone:
    architecture = Architecture(width=0.125, blocks=(1, 0, 0, 0), embedding_size=8, image_size=(16, 16))
    return architecture.build(torch.Generator().manual_seed(0)).eval()


def faces() -> torch.Tensor:
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def run(**switches: str) -> Run:
    return Run.model_validate({"steps": 1, **switches})


def test_plain_it_is_the_backbone() -> None:
    backbone = tiny_backbone()
    network = FastNetwork(backbone, Compute(device=CPU, compiled=False, channels_last=False))
    assert torch.equal(network(faces()), backbone(faces()))


def test_channels_last_changes_the_layout_and_not_the_result() -> None:
    backbone = tiny_backbone()
    expected = backbone(faces())
    network = FastNetwork(backbone, Compute(device=CPU, compiled=False, channels_last=True))
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in backbone.parameters() if p.ndim == 4)
    torch.testing.assert_close(network(faces()), expected, rtol=1e-4, atol=1e-5)


def test_bf16_gives_float32_embeddings_close_by_and_float32_gradients() -> None:
    backbone = tiny_backbone()
    expected = backbone(faces()).detach()
    embeddings = FastNetwork(backbone, Compute(device=CPU, half=torch.bfloat16, compiled=False, channels_last=False))(
        faces()
    )
    assert embeddings.dtype == torch.float32
    assert not torch.equal(embeddings, expected), "bf16 has taken place"
    assert torch.nn.functional.cosine_similarity(embeddings, expected).min() > 0.99
    embeddings.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in backbone.parameters())


def test_auto_is_what_measures_faster_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    assert compute_on(CPU, run()) == Compute(device=CPU, compiled=False, channels_last=False)
    assert compute_on(CUDA, run()) == Compute(device=CUDA, half=torch.bfloat16, compiled=True, channels_last=True)


def test_every_switch_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/compiler")
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    on = run(precision="bf16", compile="on", channels_last="on")
    off = run(precision="fp32", compile="off", channels_last="off")
    assert compute_on(CPU, on) == Compute(device=CPU, half=torch.bfloat16, compiled=True, channels_last=True)
    assert compute_on(CUDA, off) == Compute(device=CUDA, compiled=False, channels_last=False)


@pytest.mark.parametrize(
    ("capability", "half"), [((8, 0), torch.bfloat16), ((7, 5), torch.float16), ((7, 0), torch.float16), ((6, 1), None)]
)
def test_auto_is_what_the_gpu_multiplies_itself(
    capability: tuple[int, int], half: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch emulates bf16 on the others."""
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or capability >= (8, 0)
    )
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert compute_on(CUDA, run()).half == half
    assert compute_on(CUDA, run(precision="fp16")).half == torch.float16


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_without_its_arithmetic_a_run_computes_in_fp32_with_one_warning(
    precision: str, native: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, f"_is_mkldnn_{precision}_supported", lambda: native)
    with caplog.at_level(logging.WARNING):
        assert (compute_on(CPU, run(precision=precision)).half is not None) == native
    assert (f"no {precision} arithmetic" in caplog.text) != native


def test_without_a_compiler_a_run_is_eager_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    TrainingRun.start(tiny(tmp_path / "teacher")).train()
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(torch, "compile", lambda *_, **__: pytest.fail("compiled without a compiler"))
    # With a reference network, which is run in the same way.
    reference = [f"model.start={tmp_path / 'teacher'}", "method.regularizer.reference_adversarial=1"]
    with caplog.at_level(logging.WARNING):
        TrainingRun.start(tiny(tmp_path / "run", "run.compile=on", *GATED, *reference)).train()
    (warning,) = [record.message for record in caplog.records if "compile" in record.message]
    assert "no C++ compiler" in warning
    assert "running eager; install one" in warning


def test_the_compiler_named_in_cxx_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: name if name == "my-compiler" else None)
    monkeypatch.delenv("CXX", raising=False)
    assert not compute_on(CPU, run(compile="on")).compiled
    monkeypatch.setenv("CXX", "my-compiler")
    assert compute_on(CPU, run(compile="on")).compiled


def test_devices_are_found_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_device("cpu") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == CPU
    for name in ("gpu", "cuda:99", "cpu:x", ""):
        with pytest.raises(SteadfaceError, match=rf"device '{name}' cannot be used .*choose cpu, cuda or auto"):
            resolve_device(name)
