"""Give the champion a challenger, which its shadow is: another model of the same training."""

import json

from include.registry import registry
from tests.case import CASE

champion = registry.champion(CASE)
others = [one for one in registry.members(CASE, champion).values() if one.run_id != champion.run_id]
print(json.dumps(registry.register(CASE, others[0].run_id).version))
