"""Give the champion a challenger, which its shadow is: another model of the same training."""

import json

from include.registry import registry

champion = registry.champion()
others = [one for one in registry.members(champion).values() if one.run_id != champion.run_id]
print(json.dumps(registry.register(others[0].run_id).version))
