"""Whether this project runs where it was deployed to. No database and no network is needed.

`astro dev pytest` runs it in the image; `make astro` and `make mwaa` have run it before. It is
about `$AIRFLOW_HOME`, as Airflow itself sees it: each test is a process of its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HOME = Path(os.environ["AIRFLOW_HOME"]).resolve()
DAGS, PLUGINS = HOME / "dags", HOME / "plugins"
BROKEN = "broken_usecases.py"
"""Holds no DAG, but the import error of use cases that cannot be loaded."""

PARSE = """
from airflow.dag_processing.dagbag import BundleDagBag
bag = BundleDagBag(dag_folder=DAGS, bundle_path=DAGS, bundle_name="dags-folder")
errors = {str(file): error for file, error in bag.import_errors.items()}
print(json.dumps([errors, [[dag.relative_fileloc, dag.dag_id] for dag in bag.dags.values()]]))
"""

LOAD = """
from airflow.plugins_manager import get_import_errors, get_plugin_info
assert DAGS not in map(os.path.realpath, sys.path)
found = [[plugin["name"], str(plugin["source"])] for plugin in get_plugin_info()]
loaded = sorted(name for name in sys.modules if name.partition(".")[0] == "include")
import include
print(json.dumps([get_import_errors(), found, loaded, list(include.__path__)]))
"""

IMPORT = """
import ast, importlib.util
from pathlib import Path
sys.path += [PLUGINS, DAGS]

def imports(node):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and not child.level:
            yield child.module
        elif not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield from imports(child)

import include
folders = [DAGS, PLUGINS, *include.__path__]
files = {file for folder in folders for file in Path(folder).resolve().rglob("*.py")}
wanted = {name: str(file) for file in files for name in imports(ast.parse(file.read_text()))}

def is_here(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False

missing = {name: file for name, file in wanted.items() if not is_here(name)}
print(json.dumps([missing, len(files)]))
"""


def run(program: str) -> Any:
    """What a program prints last, in a process that has the path that this one was started with."""
    head = f"import json, os, sys\nDAGS, PLUGINS = {str(DAGS)!r}, {str(PLUGINS)!r}\n"
    command = [sys.executable, *(["-I"] if sys.flags.isolated else []), "-c", head + program]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def in_full(faults: dict[str, str]) -> str:
    """All of them: of anything but text, pytest shows the two ends."""
    return "\n".join(f"{what}: {why}" for what, why in sorted(faults.items()))


def test_every_file_in_dags_parses_and_holds_a_dag() -> None:
    errors, dags = run(PARSE)
    assert not errors, in_full(errors)
    files = sorted(file.name for file in DAGS.glob("*.py") if file.name != BROKEN)
    assert sorted({file for file, _ in dags}) == files, f"{files} hold these DAGs: {dags}"
    print(f"{len(dags)} DAGs")


def test_every_plugin_loads_where_the_dags_are_not_on_the_path() -> None:
    errors, found, loaded, library = run(LOAD)
    assert not errors, in_full(errors)
    for file in PLUGINS.glob("*.py"):
        assert any(file.name in source for _, source in found), f"{file} is no plugin: {found}"
    assert not loaded, (
        "With the library in its memory, the DAG processor would go on parsing DAG files with it "
        f"after a new one is uploaded: import it inside of functions. Loaded: {loaded}"
    )
    assert len(library) == 1, f"two libraries: {library}"
    print(f"{len(found)} plugins")


def test_whatever_the_code_imports_is_installed_also_inside_of_tasks() -> None:
    missing, files = run(IMPORT)
    assert not missing, in_full(missing)
    print(f"all that {files} files import")


if __name__ == "__main__":  # without pytest, which is not on MWAA
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            test()
