"""What runs on this machine. A use case that lacks a piece is told before any of it begins."""

import importlib
import sys

try:
    importlib.import_module("include")
except ImportError as error:
    sys.exit(str(error))
