import resource
from pathlib import Path

import pytest
import torch
from torch import Tensor

from steadface.attacks import CosineScore, ball, dodge
from steadface.audit.generator import Description, SteadyNetwork, check_out, load_generative, save_generative
from steadface.backbones import Architecture, save_backbone
from steadface.backbones.weights import write_safetensors
from steadface.errors import SteadfaceError

SIZE = 6


def described(**changes: object) -> Description:
    values = {
        **{"embedding_size": SIZE, "width": 4, "blocks": 2, "norm": "linf", "eps": 0.05, "victim": "model.pt"},
        **{"fingerprint": "00ff", "steps": 7, "planned": 9, "batch": 8, "seed": 1, "faces": "aa"},
    }
    return Description.model_validate({**values, **changes})


def embed(images: Tensor) -> Tensor:
    weight = torch.randn(3 * 8 * 8, SIZE, generator=torch.Generator().manual_seed(5))
    return (images - 0.5).flatten(1) @ weight


@pytest.fixture
def network() -> SteadyNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        made = SteadyNetwork(embedding_size=SIZE, width=4, blocks=2)
        assert not made.patterns.weight.any(), "patterns are learnt from nothing"
        torch.nn.init.normal_(made.patterns.weight, std=0.01)
        return made


@pytest.fixture
def file(tmp_path: Path, network: SteadyNetwork) -> Path:
    path = tmp_path / "generator.safetensors"
    save_generative(path, network, described())
    return path


@pytest.fixture
def images() -> Tensor:
    return torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def score(images: Tensor) -> CosineScore:
    return dodge(embed, embed(images.flip(0)))


def test_what_is_read_back_proposes_what_the_network_does(
    file: Path, network: SteadyNetwork, images: Tensor, score: CosineScore
) -> None:
    state = torch.random.get_rng_state()
    trained = load_generative(file, embedding_size=SIZE)
    assert torch.equal(torch.random.get_rng_state(), state), "loading draws nothing"
    assert trained.description == described()
    assert trained.ball == ball("linf", 0.05)
    x_adv = trained(score, images, generator=torch.Generator().manual_seed(2))
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        delta = 0.05 * network(images, noise, -score.anchors).tanh()
    torch.testing.assert_close(x_adv, (images + delta).clamp(0, 1), atol=1e-6, rtol=0)


def test_no_weights_drive_the_field_to_the_ends_of_the_squash(network: SteadyNetwork, images: Tensor) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(30)
        network.out[0].bias += 1e4  # type: ignore[assignment]
        wish = torch.eye(SIZE)[:5]
        field = network(images, torch.zeros_like(images), wish)
        other = network(images, torch.zeros_like(images), -wish)
    channels = field.flatten(2)
    torch.testing.assert_close(channels.mean(2), torch.zeros(5, 3), atol=1e-3, rtol=0)
    torch.testing.assert_close(channels.var(2, unbiased=False), torch.ones(5, 3), atol=1e-3, rtol=0)
    assert float((field - other).abs().mean()) > 0.1, "what is wished for matters"


def test_opposite_wishes_have_opposite_patterns(network: SteadyNetwork, images: Tensor) -> None:
    with torch.no_grad():
        network.patterns.weight.mul_(1e4)  # beside which the face is nothing
        wish, noise = torch.eye(SIZE)[:5], torch.zeros_like(images)
        field, other = network(images, noise, wish), network(images.flip(0), noise, -wish)
    torch.testing.assert_close(field, -other, atol=1e-2, rtol=0)


def test_it_has_stopped_learning(file: Path, images: Tensor, score: CosineScore) -> None:
    trained = load_generative(file)
    before = {key: value.clone() for key, value in trained.attack.network.state_dict().items()}
    generator = torch.Generator().manual_seed(2)
    for _ in range(2):
        assert not trained(score, images, generator=generator).requires_grad
    assert all(torch.equal(value, before[key]) for key, value in trained.attack.network.state_dict().items())


@pytest.mark.parametrize(("norm", "radius"), [("linf", 0.01), ("l2", 0.5)])
def test_it_fits_into_other_balls(file: Path, images: Tensor, score: CosineScore, norm: str, radius: float) -> None:
    moved = load_generative(file).within(ball(norm, radius))
    delta = (moved(score, images, generator=torch.Generator().manual_seed(2)) - images).flatten(1)
    assert moved.ball == ball(norm, radius)
    length = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
    assert 0 < float(length.max()) <= radius + 1e-6


def test_another_embedding_size_is_refused_with_the_remedy(file: Path, images: Tensor) -> None:
    remedy = r"trained against model.pt, whose embeddings have 6 numbers, .* have 7: train one"
    with pytest.raises(SteadfaceError, match=remedy):
        load_generative(file, embedding_size=7)
    wider = dodge(embed, torch.ones(5, 7))
    with pytest.raises(SteadfaceError, match=remedy):
        load_generative(file)(wider, images, generator=torch.Generator())


def test_files_that_are_none_are_refused(tmp_path: Path, network: SteadyNetwork, file: Path) -> None:
    with pytest.raises(SteadfaceError, match=r"nothing\.safetensors is no file; train"):
        load_generative(tmp_path / "nothing.safetensors")
    model = tmp_path / "model.safetensors"
    architecture = Architecture(width=0.125, blocks=(1, 0, 0, 0), embedding_size=8, image_size=(16, 16))
    save_backbone(model, architecture.build(torch.Generator().manual_seed(0)), {})
    with pytest.raises(SteadfaceError, match="holds no generative attack"):
        load_generative(model)
    save_generative(file, network, described(width=8))
    with pytest.raises(SteadfaceError, match="damaged, or of another version"):
        load_generative(file)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SteadfaceError, match="may be truncated"):
        load_generative(file)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("blocks", 10**9), ("blocks", "2"), ("width", 1e9), ("embedding_size", 10**12), ("embedding_size", True),
        ("eps", "0.05"), ("eps", 0), ("norm", "l7"), ("steps", 7.0), ("victim", None), ("added", 1),
    ],
)  # fmt: skip
def test_what_it_says_of_itself_is_checked_before_a_network_is_made(
    file: Path, network: SteadyNetwork, key: str, value: object
) -> None:
    write_safetensors(file, network.state_dict(), {**described().model_dump(mode="json"), key: value})
    with pytest.raises(SteadfaceError, match=rf"another version .*{key}"):
        load_generative(file)


@pytest.mark.parametrize("lie", [{"width": 1024, "blocks": 64}, {"embedding_size": 65_536}])
def test_sizes_that_lie_cost_no_memory(network: SteadyNetwork, file: Path, lie: dict[str, int]) -> None:
    save_generative(file, network, described(**lie))  # 4.8 and 2.5 GB, were they true
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SteadfaceError, match="damaged"):
        load_generative(file)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_no_numbers_are_refused(network: SteadyNetwork, file: Path, value: float) -> None:
    with torch.no_grad():
        network.patterns.weight[0, 0] = value
    save_generative(file, network, described())
    with pytest.raises(SteadfaceError, match=r"patterns\.weight holds other than finite"):
        load_generative(file)


def test_only_an_earlier_attack_may_be_written_over(tmp_path: Path, file: Path) -> None:
    check_out(file)
    check_out(tmp_path / "new" / "generator.safetensors")
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"mine")
    with pytest.raises(SteadfaceError, match="exists and holds no generative attack"):
        check_out(other)
    assert other.read_bytes() == b"mine"
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(SteadfaceError, match="is a folder"):
        check_out(tmp_path / "folder.safetensors")
    with pytest.raises(SteadfaceError, match="ends with that"):
        check_out(tmp_path / "generator.pt")
    with pytest.raises(SteadfaceError, match="cannot make its folder"):
        check_out(other / "generator.safetensors")
