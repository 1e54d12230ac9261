"""The rows of a head that lies on several ranks, in a checkpoint: a safetensors file of each, read by any number.

torch.distributed.checkpoint writes and reads them; which rows a file has stands in its metadata, and nothing is
pickled. Checksums of the files lie in the checkpoint that they belong to.
"""

import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from steadface.errors import InvalidInput, SteadfaceError, Unavailable, short
from steadface.files import sha256_of
from steadface.ranks import Ranks


def write_rows(folder: Path, tensors: Mapping[str, Tensor], counts: Mapping[str, int], ranks: Ranks) -> dict[str, str]:
    """Writes each rank's rows of `tensors`, of so many in all; the files' SHA-256 by name. `folder` is made anew.

    Raises Unavailable where the disk refuses.
    """
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    ranks.from_first(lambda: _emptied(folder))
    with _quietly(f"the rows of the head cannot be written to {folder}", Unavailable):
        save(
            _placed(tensors, counts, ranks), storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True)
        )
    return _digests(folder, ranks)


def read_rows(
    folder: Path, forms: Mapping[str, tuple[int, ...]], digests: Mapping[str, str], ranks: Ranks
) -> dict[str, Tensor]:
    """This rank's rows (all of them where it is alone) of float32 tensors with these whole shapes.

    Raises InvalidInput where files are missing or changed.
    """
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    if (found := _digests(folder, ranks)) != dict(digests):
        changed = sorted({name for name in (*found, *digests) if found.get(name) != digests.get(name)})
        raise InvalidInput(f"{folder} is damaged, or was edited: {short(', '.join(changed))}")
    counts = {name: form[0] for name, form in forms.items()}
    own = {name: torch.zeros(_length(form[0], ranks), *form[1:]) for name, form in forms.items()}
    with _quietly(f"the rows of the head in {folder} cannot be read", InvalidInput):
        load(_placed(own, counts, ranks), storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=ranks.alone)
    return own


def _length(count: int, ranks: Ranks) -> int:
    return len(range(count)[ranks.rows(count)])


def _placed(tensors: Mapping[str, Tensor], counts: Mapping[str, int], ranks: Ranks) -> dict[str, Tensor]:
    """As torch.distributed knows them: rows of whole tensors, on the CPU."""
    if ranks.alone:
        return dict(tensors)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard

    mesh = init_device_mesh("cpu", (ranks.size,))

    def placed(name: str, own: Tensor) -> Tensor:
        shape = torch.Size((counts[name], *own.shape[1:]))
        stride = torch.empty(shape, device="meta").stride()
        return DTensor.from_local(own, mesh, [Shard(0)], run_check=False, shape=shape, stride=stride)

    return {name: placed(name, own.detach().cpu().contiguous()) for name, own in tensors.items()}


def _digests(folder: Path, ranks: Ranks) -> dict[str, str]:
    """Of the files in `folder`, of which each rank reads its part."""
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    own = {name: sha256_of(folder / name) for name in names[ranks.rank :: ranks.size]}
    return {name: digest for one in ranks.collected(own) for name, digest in one.items()}


def _emptied(folder: Path) -> None:
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    except OSError as error:
        raise Unavailable(f"{folder} cannot be written: {error.strerror}; free some space") from error


@contextmanager
def _quietly(what: str, kind: type[SteadfaceError]) -> Iterator[None]:
    """Without torch's warnings on its own interfaces; its errors in words."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except SteadfaceError:
        raise
    except Exception as error:  # CheckpointException and what is in it
        raise kind(f"{what} ({short(str(error))}); see to the disk, and go on from the checkpoint before") from error
