"""What a fork adds: a folder for each use case, and the one place that finds and loads them.

`ML_USECASES` says which are enabled. A folder may be anywhere; it is imported as
`include.usecases.<name>`, so its modules import each other as `from .schema import KEY`.
"""

import sys
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from include.settings import PROJECT, settings
from include.usecase import USECASES, UseCase, UsecaseInvalid, check_pieces
from include.wording import listed


def enabled() -> list[UseCase]:
    """The enabled use cases, in the order in which they are named.

    Those that cannot be loaded are left out: `broken` has them.
    """
    return [found for found in _all().values() if isinstance(found, UseCase)]


def broken() -> dict[Path, UsecaseInvalid]:
    """What is wrong with each enabled use case that cannot be loaded, by its folder."""
    found = {folder: found for folder, found in _all().items() if not isinstance(found, UseCase)}
    return found


def find(name: str) -> UseCase:
    """The enabled use case of a name, or of a path as `ML_USECASES` may hold.

    Raises:
        UsecaseInvalid: it is not enabled, or it cannot be loaded.
    """
    for folder, found in _all().items():
        if name in (folder.name, str(folder)) or PROJECT / name == folder:
            if isinstance(found, UseCase):
                return found
            raise found
    names = [folder.name for folder in _all()]
    raise UsecaseInvalid(
        f"There is no use case {name!r}: {listed(names) or 'none'} are enabled. ML_USECASES names "
        "them."
    )


def folders() -> list[Path]:
    """The folders of the enabled use cases.

    Raises:
        UsecaseInvalid: two of them have the same name.
    """
    names = [name for name in settings().usecases.replace(",", " ").split() if name]
    if names:
        found = [_folder(name) for name in names]
    else:
        own = Path(__file__).parent
        found = sorted(path.parent for path in own.glob("*/__init__.py"))
    for one in found:
        if twice := [other for other in found if other.name == one.name and other != one]:
            raise UsecaseInvalid(
                f"Two use cases are called {one.name}: {one} and {twice[0]}. Rename one of the "
                "folders, or take one out of ML_USECASES."
            )
    return list(dict.fromkeys(found))


def _folder(name: str) -> Path:
    if "/" in name:
        return (PROJECT / name).resolve()
    return Path(__file__).parent / name


def _all() -> dict[Path, UseCase | UsecaseInvalid]:
    return {folder: _loaded(folder) for folder in folders()}


@cache
def _loaded(folder: Path) -> UseCase | UsecaseInvalid:
    try:
        return load(folder)
    except UsecaseInvalid as error:
        return error


def load(folder: Path) -> UseCase:
    """Import the use case of a folder; of its modules, only `__init__.py`.

    Raises:
        UsecaseInvalid: it lacks a piece, cannot be imported, or declares what cannot work.
    """
    check_pieces(folder)
    name = f"{USECASES}.{folder.name}"
    try:
        if name not in sys.modules:
            _import(name, folder)
        found = sys.modules[name].USECASE
    except Exception as error:
        raise UsecaseInvalid(
            f"The use case in {folder} cannot be imported: {type(error).__name__}: {error}. None "
            "of its DAGs is there. Change its __init__.py, then run `make usecase`."
        ) from error
    if not isinstance(found, UseCase) or found.name != folder.name:
        said = f"is called {found.name}" if isinstance(found, UseCase) else f"is {found!r}"
        raise UsecaseInvalid(
            f"USECASE in {folder / '__init__.py'} {said}, and has to be a UseCase called "
            f"{folder.name}, like its folder. None of its DAGs is there."
        )
    return found


def _import(name: str, folder: Path) -> None:
    spec = spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
