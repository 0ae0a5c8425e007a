"""Land and validate history, and let broken files wait: first day, last day, broken days."""

import json
import sys

from include.usecase.schema import INPUTS

from include.lake.tables import default_lake
from local.seed import seed

first, last, *broken = sys.argv[1:]
lake = default_lake()
published = seed(lake, first, last, say=lambda _: None)
for key in broken:
    path = lake.landing_path(INPUTS[0].name, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"PAR1 this is no Parquet file")
print(json.dumps(published))
