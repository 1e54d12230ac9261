"""What `module:function` and `path/to/file.py:function` name: a torch module, or a callable around a service.

Naming code runs it, which is what is asked for; nothing is unpickled.
"""

import difflib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from steadface.errors import InvalidInput, NotFound, SteadfaceError, Unsupported

_WITH_WEIGHTS = re.compile(r"(.+?:[\w.]+)@(.+)")

KINDS = "a torch module, a function without parameters that makes one, or a function of uint8 faces (B, H, W, 3)"


@dataclass(frozen=True, kw_only=True)
class Named:
    """What a `spec` names, the source code that it was found in where that can be read, and the file of `weights` that
    it names beside.
    """

    spec: str
    found: nn.Module | Callable[..., Any]
    source: bytes | None
    weights: Path | None = None

    @property
    def name(self) -> str:
        """Without the folder of a file."""
        code, weights = parts_of_name(self.spec)
        place, _, name = code.rpartition(":")
        called = f"{Path(place).stem}:{name}" if place.endswith(".py") else code
        return called if weights is None else f"{called}@{weights.stem}"

    @property
    def function(self) -> bytes:
        """Its name alone: modules of the same weights may compute different things."""
        return parts_of_name(self.spec)[0].rpartition(":")[2].encode()

    @property
    def seen(self) -> str:
        """What of its code a fingerprint can cover."""
        return "no source code" if self.source is None else "the source file it is named in"


def parts_of_name(spec: str) -> tuple[str, Path | None]:
    """`module:function` and, of `module:function@FILE`, the file of weights that the module is to have."""
    match = _WITH_WEIGHTS.fullmatch(spec)
    return (spec, None) if match is None else (match[1], Path(match[2]))


def load_named(spec: str) -> Named:
    """The module or callable that `spec` stands for.

    Raises SteadfaceError for a file, module or name that is not there, code that fails, and objects of other types.
    """
    code, weights = parts_of_name(spec)
    place, _, name = code.rpartition(":")
    if not place or not name:
        raise InvalidInput(f"{spec} names no function; write module:function or path/to/file.py:function")
    with _importable(Path(place).parent if place.endswith(".py") else Path.cwd()):
        module = _file_module(Path(place)) if place.endswith(".py") else _imported(place)
        found = _called(_member(module, name, code), code)
    return Named(spec=spec, found=found, source=_source(module), weights=weights)


def required_parameters(function: Callable[..., Any]) -> int | None:
    """How many positional arguments a call must give; None where it cannot be told."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return sum(one.default is one.empty and one.kind not in optional for one in parameters)


def _called(found: Any, spec: str) -> nn.Module | Callable[..., Any]:
    """`found`, or what it makes where it is a factory."""
    if isinstance(found, nn.Module):
        return found
    if not callable(found):
        raise InvalidInput(f"{spec} is of type {type(found).__name__}; it must be {KINDS}")
    if required_parameters(found) == 0:
        made = _run(found, spec)
        if not callable(made):  # torch modules are
            raise InvalidInput(f"{spec} returned a {type(made).__name__}; it must return a torch module or a function")
        found = made
    if isinstance(found, type):
        raise InvalidInput(
            f"{spec} is a class whose making takes arguments; name a function without any that makes one"
        )
    return found if isinstance(found, nn.Module) else _service(found, spec)


def _service(found: Callable[..., Any], spec: str) -> Callable[..., Any]:
    needed = required_parameters(found)
    if needed not in (None, 1):
        raise InvalidInput(
            f"{spec} takes {needed} arguments; it must be {KINDS}. Wrap it in a function of the faces alone"
        )
    return found


def _run(factory: Callable[[], Any], spec: str) -> Any:
    try:
        return factory()
    except SteadfaceError:
        raise
    except (Exception, SystemExit) as error:  # whatever somebody's factory raises, or how a script ends
        raise InvalidInput(f"{spec} raised {type(error).__name__}: {error}; call it by itself to see where") from error


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise NotFound(
                f"there is no module {name}; give one that can be imported from here, or path/to/file.py:function"
            ) from error
        raise Unsupported(f"{name} imports {error.name}, which is not installed; install it") from error
    except (Exception, SystemExit) as error:  # whatever somebody's module raises, or how a script ends
        raise InvalidInput(f"importing {name} raised {type(error).__name__}: {error}; import it by itself") from error


def _file_module(path: Path) -> ModuleType:
    if not path.is_file():
        raise NotFound(f"{path} does not exist; give the path of a Python file, as in path/to/file.py:function")
    name = f"steadface_named_{path.stem}"
    description = importlib.util.spec_from_file_location(name, path)
    assert description is not None
    assert description.loader is not None
    module = importlib.util.module_from_spec(description)
    # Dataclasses look their module up by its name.
    sys.modules[name] = module
    try:
        description.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever somebody's file raises, or how a script ends
        del sys.modules[name]
        raise InvalidInput(f"{path} raised {type(error).__name__}: {error}; run it by itself to see where") from error
    return module


def _member(module: ModuleType, name: str, spec: str) -> Any:
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            names = [one for one, value in vars(module).items() if callable(value) and not one.startswith("_")]
            near = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or sorted(names)[:5]
            raise NotFound(f"{spec}: there is no {name} in it; there are {', '.join(near) or 'no names at all'}")
        found = getattr(found, part)
    return found


def _source(module: ModuleType) -> bytes | None:
    try:
        return Path(inspect.getfile(module)).read_bytes()
    except (TypeError, OSError):
        return None


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """As when Python runs a file: what lies beside it can be imported while it is loaded."""
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.remove(entry)
