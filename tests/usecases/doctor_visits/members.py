"""The members of the ensemble."""

from include.contract import Member
from include.usecase import NAME

MEMBERS = [
    Member("shallow_trees", "registry"),
    Member("straight_line", "registry"),
    Member("champion_by_http", "remote", slots=2, connection="model_server", model=NAME),
]
