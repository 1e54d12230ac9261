import pytest
import torch

from steadface.devices import resolve_device
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
