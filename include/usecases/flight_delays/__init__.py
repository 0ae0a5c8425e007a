"""The one folder a fork replaces: will a flight out of New York arrive 15 minutes late or more?

`source` fetches a day, `schema` says what it must look like, `features` turns it into features and
labels, `models` says what is trained on them, `members` who is in the ensemble. Nothing outside
this folder names a flight.
"""

NAME = "flight-delays"
"""Name of the use case, of its experiment and of its registered model."""

FIRST_WINDOW = ("2013-01-01", "2013-02-28")
"""First and last day of the history that the first champion is trained on."""
