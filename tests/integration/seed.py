"""Land and validate history, and let a broken file wait for a day: first, last, broken day."""

import json
import sys

from include.lake import default_lake
from include.usecase.schema import INPUTS
from local.seed import seed

first, last, broken = sys.argv[1:]
lake = default_lake()
published = seed(lake, first, last, say=lambda _: None)
path = lake.landing_path(INPUTS[0].name, broken)
path.parent.mkdir(parents=True, exist_ok=True)
path.write_bytes(b"PAR1 this is no Parquet file")
print(json.dumps(published))
