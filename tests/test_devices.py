import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from steadface.devices import open_session, resolve_device
from steadface.errors import SteadfaceError


def test_a_device_that_is_there_comes_back() -> None:
    assert resolve_device("cpu") == resolve_device(torch.device("cpu")) == torch.device("cpu")
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "CPU", "", "meta", None, [], "cuda:99", 3.5, "x" * 5000])
def test_one_that_is_not_there_is_named_with_the_remedy(name: object) -> None:
    with pytest.raises(SteadfaceError, match=r"device .* cannot be used \(.*choose cpu, cuda or auto") as raised:
        resolve_device(name)
    assert len(str(raised.value)) < 400


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused() -> None:
    with pytest.raises(SteadfaceError, match="device 'cuda' cannot be used"):
        resolve_device("cuda")


def test_names_in_a_model_reach_no_terminal_through_the_log_of_onnxruntime(capfd: pytest.CaptureFixture[str]) -> None:
    pixels, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 3]) for name in ("x", "y"))
    shape = helper.make_tensor("s", TensorProto.INT64, [2], [7, 11])
    node = helper.make_node("Reshape", ["x", "s"], ["y"], name="\x1b[31mred")
    model = helper.make_model(
        helper.make_graph([node], "g", [pixels], [out], [shape]),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )
    session = open_session(model.SerializeToString())
    with pytest.raises(Exception, match="red"):
        session.run(None, {"x": np.zeros((1, 3), np.float32)})
    assert capfd.readouterr().err == ""
