"""What does a diamond cost? A regression whose labels vary by factors, with reason codes.

53,940 diamonds with their prices in dollars, as the package plotnine ships them. They have no
dates: 160 of them are dealt to each day. Offers come as files, sales from a database.
"""

from include.file_events import FileEvent
from include.settings import settings
from include.usecase import Member, UseCase

USECASE = UseCase(
    name="diamond_prices",
    first_window=("2021-03-01", "2021-04-11"),
    members=[
        Member("boosted_trees", "registry"),
        Member("straight_line", "registry"),
        Member("remote", "remote", slots=2, connection="model_server", model="diamond_prices"),
    ],
    # Size and quality nearly fix a price: that is no leak.
    own_settings={"gate_max_skill": 0.95, "reason_codes": 3},
    file_events=[FileEvent(f"{settings().data_dir.resolve()}/drop", "%Y/%m/%d/_SUCCESS")],
)
