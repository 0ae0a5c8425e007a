"""The library, and the one place that decides which use case it runs.

`include.usecase` is the folder `usecase` beside this file. The environment variable `ML_USECASE`
names another folder to be it, for this process and all that it starts. Either is looked at first:
a use case that lacks a piece runs nothing.
"""

import os
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from include.contract import check_pieces

USECASE = Path(__file__).parent.parent / (os.environ.get("ML_USECASE") or "include/usecase")
"""Folder of the use case. `ML_USECASE` is absolute, or relative to the project."""

check_pieces(USECASE)

if os.environ.get("ML_USECASE"):
    _spec = spec_from_file_location(
        "include.usecase", USECASE / "__init__.py", submodule_search_locations=[str(USECASE)]
    )
    assert _spec is not None
    assert _spec.loader is not None
    _module = module_from_spec(_spec)
    globals()["usecase"] = sys.modules["include.usecase"] = _module
    _spec.loader.exec_module(_module)
