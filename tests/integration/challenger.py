"""Give the champion of a use case a challenger, its shadow: another model of the same training."""

import json
import sys

from include import usecases
from include.registry import registry

case = usecases.find(sys.argv[1])
champion = registry.champion(case)
others = [one for one in registry.members(case, champion).values() if one.run_id != champion.run_id]
print(json.dumps(registry.register(case, others[0].run_id).version))
