"""Land and validate history, and let broken files wait: first day, last day, broken days."""

import json
import sys

from include.usecases.flight_delays.schema import INPUTS
from local.seed import seed
from tests.case import CASE, at

first, last, *broken = sys.argv[1:]
lake = CASE.lake
published = seed(at(lake), first, last, say=lambda _: None)
for key in broken:
    path = lake.landing_path(INPUTS[0].name, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"PAR1 this is no Parquet file")
print(json.dumps(published))
