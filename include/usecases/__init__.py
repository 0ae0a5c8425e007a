"""The use cases, one folder each, and the code that finds and loads them.

`ML_USECASES` enables use cases. A folder may be anywhere; it is imported as
`include.usecases.<name>`, so its modules import each other as `from .schema import KEY`.
"""

import sys
from collections.abc import Iterable
from contextlib import redirect_stdout, suppress
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from threading import RLock, Thread
from types import ModuleType

from include.errors import BadData
from include.settings import PROJECT, owned_variables, settings
from include.usecase import USECASES, UseCase, UsecaseInvalid, check_pieces, check_usecase_name
from include.wording import listed

OWN = Path(__file__).parent
"""Folder of the use cases that are named without a path."""

_loading = RLock()

IMPORT_SECONDS = 10.0
"""Time limit for importing a use case's `__init__.py`, which should only declare things."""


def enabled() -> list[UseCase]:
    """The enabled use cases, in the order of `ML_USECASES`.

    Those that cannot be loaded are in `broken` instead.

    Raises:
        BadData: a setting of the installation is wrong.
    """
    return [found for found in _all().values() if isinstance(found, UseCase)]


def broken() -> dict[Path, UsecaseInvalid]:
    """Folder of each enabled use case that cannot be loaded → the reason."""
    return {folder: found for folder, found in _all().items() if not isinstance(found, UseCase)}


def find(name: str) -> UseCase:
    """The enabled use case with a name or path, as in `ML_USECASES`. No other is imported.

    Raises:
        UsecaseInvalid: it is not enabled, or it cannot be loaded.
    """
    known = folders()
    for folder in known:
        if name == folder.name or (PROJECT / name).resolve() == folder:
            found = _usable(folder, known)
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
    known = folders()
    found = {folder: _usable(folder, known) for folder in known}
    lakes: dict[str, list[Path]] = {}
    for folder, case in found.items():
        with suppress(BadData):  # no place for lakes is set, which their first use reports
            if isinstance(case, UseCase):
                lakes.setdefault(_place(case), []).append(folder)
    for root, sharing in lakes.items():
        if len(sharing) > 1:
            found |= dict.fromkeys(sharing, _of_one_lake(root, sharing))
    return found


def _place(case: UseCase) -> str:
    """Where a use case's lake is, whichever way it is written."""
    root = case.settings.lake_of(case.name).removeprefix("file://")
    return root.rstrip("/") if "://" in root else str((PROJECT / root).resolve())


def _of_one_name(name: str, found: list[Path]) -> UsecaseInvalid:
    places = [str(folder) for folder in found if folder.name == name]
    return UsecaseInvalid(
        f"{len(places)} use cases are called {name}: {listed(places)}. They have no DAGs until "
        "this is fixed. Rename one (its folder, and the name in its __init__.py), or remove it "
        "from ML_USECASES."
    )


def _of_one_lake(root: str, sharing: list[Path]) -> UsecaseInvalid:
    names = [folder.name for folder in sharing]
    return UsecaseInvalid(
        f"{listed(names)} have the same lake, {root}, so each would publish over the other's "
        "days. They have no DAGs until this is fixed. Give each a lake_root of its own, or none: "
        "then each has a folder in ML_LAKE_ROOT."
    )


def check_variables() -> None:
    """Refuse variables of use cases that do not exist; they need not be enabled.

    Raises:
        BadData: with a line for each such variable.
    """
    found = folders()
    there = {folder.name.upper() for folder in (*found, *_own_folders())}
    if lost := [name for name, owner in owned_variables() if owner not in there]:
        raise BadData(
            "\n".join(
                f"{name} is for a use case that does not exist: {_told(found)}"
                for name in sorted(lost)
            )
        )


def _told(found: Iterable[Path]) -> str:
    names = [folder.name for folder in found]
    return f"enabled {'is' if len(names) == 1 else 'are'} {listed(names) or 'none'}"


def _usable(folder: Path, known: list[Path]) -> UseCase | UsecaseInvalid:
    """The use case of a folder, unless it, its settings or its name are wrong."""
    if [one.name for one in known].count(folder.name) > 1:
        return _of_one_name(folder.name, known)
    with _loading:  # a second thread would find it half imported
        found = _loaded(folder)
    if isinstance(found, UseCase):
        try:
            _ = found.settings
        except Exception as error:  # also for a value that cannot be converted
            return UsecaseInvalid(
                f"The use case in {folder} cannot work: {error}. It has no DAGs until this is "
                "fixed."
            )
    return found


@cache
def _loaded(folder: Path) -> UseCase | UsecaseInvalid:
    try:
        return load(folder)
    except UsecaseInvalid as error:
        return error


def load(folder: Path) -> UseCase:
    """Import the use case in a folder; of its modules, only `__init__.py`.

    Raises:
        UsecaseInvalid: it lacks a piece, cannot be imported, or declares something impossible.
    """
    init, name = folder / "__init__.py", f"{USECASES}.{folder.name}"
    try:
        check_usecase_name(folder.name)
        check_pieces(folder)
        if not _is_of(sys.modules.get(name), folder):
            for known in [one for one in sys.modules if f"{one}.".startswith(f"{name}.")]:
                del sys.modules[known]  # from another folder with this name that was enabled before
            _import(name, folder)
        found = sys.modules[name].USECASE
    except UsecaseInvalid:
        raise
    except Exception as error:
        raise UsecaseInvalid(
            f"The use case in {folder} cannot be imported: {type(error).__name__}: {error}. It has "
            "no DAGs until this is fixed. Change its __init__.py, then run `make usecase`."
        ) from error
    if not isinstance(found, UseCase) or found.name != folder.name:
        said = f"is called {found.name}" if isinstance(found, UseCase) else f"is {found!r}"
        raise UsecaseInvalid(
            f"USECASE in {init} {said}, and has to be a UseCase called {folder.name}, like its "
            "folder. It has no DAGs until this is fixed."
        )
    return found


def _is_of(module: ModuleType | None, folder: Path) -> bool:
    return module is not None and Path(str(module.__file__)).parent.resolve() == folder.resolve()


def _import(name: str, folder: Path) -> None:
    """Import a folder's `__init__.py` with a time limit, and hide its output.

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
    with redirect_stdout(sys.stderr):  # the output of a command may be parsed
        thread.start()
        thread.join(IMPORT_SECONDS)
    if thread.is_alive() or failed:
        del sys.modules[name]
    if thread.is_alive():
        raise TimeoutError(
            f"it has not ended within {IMPORT_SECONDS:g} seconds. Slow code belongs in the "
            "functions of its modules"
        )
    for error in failed:
        if not isinstance(error, Exception):
            raise RuntimeError(f"it ends the program by {error!r}") from error
        raise error
