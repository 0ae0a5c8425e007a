"""Land and validate history, and let broken files wait.

Use case, first day, last day, broken days.
"""

import json
import sys

from include import usecases
from local.seed import seed

name, first, last, *broken = sys.argv[1:]
case = usecases.find(name)
published = seed(case, first, last, say=lambda _: None)
for key in broken:
    path = case.lake.landing_path(case.inputs[0].name, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"PAR1 this is no Parquet file")
print(json.dumps(published))
