"""What a fork adds: a folder for each use case, and the one place that finds and loads them.

`ML_USECASES` says which are enabled. A folder may be anywhere; it is imported as
`include.usecases.<name>`, so its modules import each other as `from .schema import KEY`.
"""

import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import redirect_stdout
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from threading import Thread
from types import ModuleType

from include.errors import BadData
from include.settings import PROJECT, owned_variables, settings
from include.usecase import USECASES, UseCase, UsecaseInvalid, check_pieces, check_usecase_name
from include.wording import listed

OWN = Path(__file__).parent
"""Where the use cases are that are named without a path."""

IMPORT_SECONDS = 10.0
"""How long the import of a use case's `__init__.py` may take, which only declares."""


def enabled() -> list[UseCase]:
    """The enabled use cases, in the order in which they are named.

    Those that cannot be loaded are left out: `broken` has them.

    Raises:
        BadData: a setting of the installation is wrong, or is for a use case that is not there.
    """
    return [found for found in _all().values() if isinstance(found, UseCase)]


def broken() -> dict[Path, UsecaseInvalid]:
    """What is wrong with each enabled use case that cannot be loaded, by its folder."""
    return {folder: found for folder, found in _all().items() if not isinstance(found, UseCase)}


def find(name: str) -> UseCase:
    """The enabled use case of a name, or of a path as `ML_USECASES` may hold.

    Raises:
        UsecaseInvalid: it is not enabled, or it cannot be loaded.
    """
    known = _all()
    for folder, found in known.items():
        if name == folder.name or (PROJECT / name).resolve() == folder:
            if isinstance(found, UseCase):
                return found
            raise found
    raise UsecaseInvalid(
        f"There is no use case {name!r}: {_told(known)}. The variable ML_USECASES names them."
    )


def folders() -> list[Path]:
    """The folders of the enabled use cases."""
    if names := [name.strip() for name in settings().usecases.split(",") if name.strip()]:
        return list(dict.fromkeys(_folder(name) for name in names))
    return _own_folders()


def _folder(name: str) -> Path:
    return (PROJECT / name).resolve() if "/" in name else OWN / name


def _own_folders() -> list[Path]:
    return sorted({path.parent for path in OWN.glob("[!.]*/*.py")})


def _all() -> dict[Path, UseCase | UsecaseInvalid]:
    found = folders()
    _check_variables(found)
    names = Counter(folder.name for folder in found)
    return {
        folder: _usable(folder) if names[folder.name] == 1 else _of_one_name(folder.name, found)
        for folder in found
    }


def _of_one_name(name: str, found: list[Path]) -> UsecaseInvalid:
    places = [str(folder) for folder in found if folder.name == name]
    return UsecaseInvalid(
        f"{len(places)} use cases are called {name}: {listed(places)}. None of their DAGs is "
        "there. Rename one (its folder, and the name in its __init__.py), or take it out of "
        "ML_USECASES."
    )


def _check_variables(found: list[Path]) -> None:
    """Refuse variables of use cases that are not there. One that is not enabled keeps its own."""
    there = {folder.name.upper() for folder in (*found, *_own_folders())}
    if lost := [name for name, owner in owned_variables() if owner not in there]:
        raise BadData(
            "\n".join(
                f"{name} is for a use case that is not there: {_told(found)}"
                for name in sorted(lost)
            )
        )


def _told(found: Iterable[Path]) -> str:
    names = [folder.name for folder in found]
    return f"enabled {'is' if len(names) == 1 else 'are'} {listed(names) or 'none'}"


def _usable(folder: Path) -> UseCase | UsecaseInvalid:
    """The use case of a folder, unless it or its settings are wrong."""
    found = _loaded(folder)
    if isinstance(found, UseCase):
        try:
            _ = found.settings
        except Exception as error:  # also of a value that nothing can make of a setting
            return UsecaseInvalid(
                f"The use case in {folder} cannot work: {error}. None of its DAGs is there."
            )
    return found


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
    init, name = folder / "__init__.py", f"{USECASES}.{folder.name}"
    try:
        check_usecase_name(folder.name)
        check_pieces(folder)
        if not _is_of(sys.modules.get(name), folder):
            for known in [one for one in sys.modules if f"{one}.".startswith(f"{name}.")]:
                del sys.modules[known]  # of another folder of that name, enabled before
            _import(name, folder)
        found = sys.modules[name].USECASE
    except UsecaseInvalid:
        raise
    except Exception as error:
        raise UsecaseInvalid(
            f"The use case in {folder} cannot be imported: {type(error).__name__}: {error}. None "
            "of its DAGs is there. Change its __init__.py, then run `make usecase`."
        ) from error
    if not isinstance(found, UseCase) or found.name != folder.name:
        said = f"is called {found.name}" if isinstance(found, UseCase) else f"is {found!r}"
        raise UsecaseInvalid(
            f"USECASE in {init} {said}, and has to be a UseCase called {folder.name}, like its "
            "folder. None of its DAGs is there."
        )
    return found


def _is_of(module: ModuleType | None, folder: Path) -> bool:
    return module is not None and Path(str(module.__file__)).parent.resolve() == folder.resolve()


def _import(name: str, folder: Path) -> None:
    """Import a folder's `__init__.py`, whatever it prints, for no longer than is bearable.

    Raises:
        TimeoutError: it has not ended. Its thread is left behind.
    """
    spec = spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module, loader = module_from_spec(spec), spec.loader
    failed: list[BaseException] = []

    def execute() -> None:
        try:
            loader.exec_module(module)
        except BaseException as error:  # SystemExit, too
            failed.append(error)

    sys.modules[name] = module
    thread = Thread(target=execute, name=f"import of {folder.name}", daemon=True)
    with redirect_stdout(sys.stderr):  # who runs a command may read what that prints
        thread.start()
        thread.join(IMPORT_SECONDS)
    if thread.is_alive() or failed:
        del sys.modules[name]
    if thread.is_alive():
        raise TimeoutError(
            f"it has not ended within {IMPORT_SECONDS:g} seconds. What takes time belongs into the "
            "functions of its modules"
        )
    for error in failed:
        if not isinstance(error, Exception):
            raise RuntimeError(f"it ends the program by {error!r}") from error
        raise error
