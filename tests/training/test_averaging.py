"""The average is what its formula says, and no trace of it is left in the network."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from steadface.backbones import Architecture
from steadface.training.averaging import WeightAverage, between
from steadface.training.loop import TrainingRun

from .runs import tiny


def network():
    torch_generator = torch.Generator().manual_seed(0)
    made = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    for parameter in made.parameters():
        parameter.data = torch.randn(parameter.shape, generator=torch_generator)
    return made


def test_it_follows_the_formula():
    made = network()
    average, expected = WeightAverage(made, 0.3), made[0].weight.detach().clone()
    for step in range(1, 6):
        with torch.no_grad():
            made[0].weight.add_(1.0)
            made[1].running_mean.add_(1.0)
        average.update()
        decay = min(0.3, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * made[0].weight.detach()
    with average.applied():
        torch.testing.assert_close(made[0].weight, expected)
        assert 0 < float(made[1].running_mean[0]) < 5


def test_the_network_is_as_it_was_afterwards_even_after_an_error():
    made = network()
    average = WeightAverage(made, 0.9)
    with torch.no_grad():
        made[0].weight.mul_(2)
    before = {name: value.clone() for name, value in made.state_dict().items()}

    def fail():
        with average.applied():
            assert not torch.equal(made[0].weight, before["0.weight"])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    for name, value in made.state_dict().items():
        assert torch.equal(value, before[name])


def test_its_state_can_be_put_back():
    made = network()
    one, other = WeightAverage(made, 0.9), WeightAverage(made, 0.9)
    with torch.no_grad():
        made[0].weight.mul_(2)
    one.update()
    other.load_state_dict({name: value.clone() for name, value in one.state_dict().items()})
    one.update()
    other.update()
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])


def test_the_model_of_a_run_is_the_average_and_a_stop_makes_no_difference(tmp_path):
    averaged = ("optimizer.average=0.5",)
    TrainingRun.start(tiny(tmp_path / "plain")).train()
    TrainingRun.start(tiny(tmp_path / "whole", *averaged)).train()
    run = TrainingRun.start(tiny(tmp_path / "cut", *averaged))
    with pytest.raises(KeyboardInterrupt):
        run.train(lambda at: (_ for _ in ()).throw(KeyboardInterrupt) if at.step == 3 else None)
    TrainingRun.resume(tmp_path / "cut").train()
    plain, whole, cut = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "whole", "cut"))
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())
    assert not all(torch.equal(value, plain[name]) for name, value in whole.items())


def test_between_two_states_lies_a_network_of_its_own():
    architecture = Architecture(width=0.125, blocks=(1, 0, 0, 0), image_size=(16, 16), embedding_size=8)
    first, last = (architecture.build(torch.Generator().manual_seed(seed)) for seed in (0, 1))
    with torch.no_grad():
        last(torch.rand(4, 3, 16, 16))  # statistics of its own, and a count of batches
    before = {name: value.clone() for name, value in first.state_dict().items()}
    found = between(first, last.state_dict(), 0.25).state_dict()
    for name, value in last.state_dict().items():
        expected = 0.75 * before[name] + 0.25 * value if value.is_floating_point() else value
        torch.testing.assert_close(found[name], expected)
        assert torch.equal(first.state_dict()[name], before[name])
