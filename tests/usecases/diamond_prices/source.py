"""Where the raw data comes from: offers are files that the shop drops, sales are in its database.

The Airflow connection `shop` names the database; without it, `shop.py` makes a SQLite.
"""

from datetime import date

from include.settings import settings
from include.sources import files, sql
from include.usecase import Fetched

from . import shop
from .schema import STONES, TRUTH

SALES = "SELECT date, stone, price FROM sales WHERE date = :day ORDER BY stone"


def fetch(input_name: str, day: date) -> Fetched | None:
    """The rows of one input for one day.

    Args:
        input_name: `stones` (offered on that day) or `sales` (the truth, known a day later).
        day: any date.
    """
    if input_name == "stones":
        shop.drop(day)
        root, marker = f"{settings().data_dir.resolve()}/drop", "%Y/%m/%d/_SUCCESS"
        return files.read(root, "%Y/%m/%d/offers-*", day, STONES, marker)
    shop.sell(day)
    return sql.query("shop", SALES, {"day": str(day)}, TRUTH)
