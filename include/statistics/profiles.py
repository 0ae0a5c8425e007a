"""Stores profiles beside the rows that they describe."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

from include.errors import MissingData
from include.lake.files import passing_over
from include.lake.tables import PROFILE, Lake, Manifest, Version
from include.statistics.profile import Profile, from_frame, merge, to_frame


def keep(version: Version, part: str, profile: Profile) -> None:
    """Store the profile of a part of a version."""
    version.write_frame(f"{part}{PROFILE}", to_frame(profile))


def read(version: Version, part: str) -> Profile | None:
    """The profile of a part of a version; None if the version is older than monitoring."""
    try:
        return _read(version, part)
    except MissingData:
        return None


def _readable(version: Version, part: str) -> Profile | None:
    found = None
    with passing_over(f"The day {version.key}"):
        found = read(version, part)
    return found


@lru_cache(maxsize=512)
def _read(version: Version, part: str) -> Profile:
    """Cached, because versions never change and consecutive days read mostly the same ones."""
    return from_frame(version.read(f"{part}{PROFILE}"))


def read_days(
    lake: Lake,
    table: str,
    part: str,
    keys: Iterable[str],
    is_wanted: Callable[[Manifest], bool] | None = None,
) -> dict[str, Profile]:
    """Profiles of a part, for each published day that has one and is wanted."""
    published = {
        key: found
        for key, found in lake.manifests(table, keys).items()
        if is_wanted is None or is_wanted(found)
    }
    versions = [Version(lake, table, key, found.version, found) for key, found in published.items()]
    with ThreadPoolExecutor(8) as readers:  # with an object store, most of the time is waiting
        profiles = readers.map(lambda version: _readable(version, part), versions)
        return {
            key: found for key, found in zip(published, profiles, strict=True) if found is not None
        }


def read_window(lake: Lake, table: str, part: str, keys: Iterable[str]) -> Profile:
    """The profile of all rows of several days."""
    return merge(read_days(lake, table, part, keys).values())
