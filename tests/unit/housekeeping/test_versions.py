"""Which versions are needed: whatever was published in whatever order, all that is needed stays."""

from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.errors import BadData, MissingData, Overtaken
from include.housekeeping.versions import days_of, unneeded
from include.lake.files import put_text, walk
from include.lake.tables import Lake, Version, remove_version
from tests.unit.housekeeping.published import DAY, NEXT, NOW, age, is_whole, publish

MONTH = timedelta(days=30)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path))


def sweep(lake: Lake, references: str = "", keep: int = 1) -> set[Version]:
    """Remove what is not needed. Returns it."""
    days = days_of(lake.root, walk(lake.root))
    found = [one.folder for one, _ in unneeded(days, references, keep, NOW - MONTH)]
    for folder in found:
        remove_version(folder)
    return {
        lake.version(
            f"{path.parent.parent.relative_to(str(lake.root))}/{path.parent.name[5:]}/{path.name}"
        )
        for path in map(Path, map(str, found))
    }


def test_a_version_that_was_replaced_long_ago_is_removed(lake: Lake) -> None:
    old, current = publish(lake, days=90), publish(lake, days=60)
    assert sweep(lake) == {old}
    assert not Path(str(old.path)).exists()
    assert is_whole(current)
    assert sweep(lake) == set()


def test_the_time_counts_since_it_was_replaced_not_since_it_was_published(lake: Lake) -> None:
    publish(lake, days=900)
    publish(lake, days=1)
    assert sweep(lake) == set()


def test_a_version_that_was_overtaken_counts_from_its_own_publication(lake: Lake) -> None:
    slow = lake.new_version("table", DAY)
    current = publish(lake, days=90)
    slow.write_frame("a", pl.DataFrame({"name": [slow.name] * 3}))
    with pytest.raises(Overtaken):
        slow.publish(["a"])
    assert sweep(lake) == set()
    age(Path(str(slow.path)), 60)
    assert sweep(lake) == {slow}
    assert is_whole(current)


def test_the_newest_versions_of_a_day_stay(lake: Lake) -> None:
    versions = [publish(lake, days=100 - n) for n in range(4)]
    assert sweep(lake, keep=3) == {versions[0]}
    assert all(map(is_whole, versions[1:]))


def test_a_current_version_stays_even_if_it_is_not_the_newest(lake: Lake) -> None:
    first, *_ = [publish(lake, days=100 - n) for n in range(3)]
    manifest = Path(str(first.path)) / "manifest.json"
    put_text(first.path.parent / "current.json", manifest.read_text())
    sweep(lake)
    assert is_whole(lake.current("table", DAY))


def test_what_a_registered_model_names_stays_and_all_that_this_was_made_from(lake: Lake) -> None:
    source = publish(lake, "validated", days=100)
    snapshot = publish(lake, "training", days=99, sources={DAY: [{"version": str(source)}]})
    for table in ("validated", "training"):
        publish(lake, table, days=98)
    assert sweep(lake, f'{{"snapshot": "{snapshot}"}}') == set()
    assert is_whole(source)
    assert sweep(lake) == {source, snapshot}


def test_what_the_current_version_of_another_day_names_stays(lake: Lake) -> None:
    source = publish(lake, "validated", days=100)
    publish(lake, "validated", days=99)
    publish(lake, "training", NEXT, days=98, sources={DAY: [{"version": str(source)}]})
    assert sweep(lake) == set()


def test_what_a_replaced_version_that_stays_names_stays(lake: Lake) -> None:
    features = publish(lake, "features", days=100)
    publish(lake, "features", days=99)
    publish(lake, "predictions", days=98, features=str(features))
    publish(lake, "predictions", days=1)
    assert sweep(lake) == set()


def test_a_day_whose_current_version_is_unknown_is_left_alone_with_all_that_it_names(
    lake: Lake, caplog: pytest.LogCaptureFixture
) -> None:
    source = publish(lake, "validated", days=100)
    publish(lake, "validated", days=99)
    publish(lake, "features", days=98, validated=str(source))
    newer = publish(lake, "features", days=97)
    current = newer.path.parent / "current.json"
    put_text(current, "{")
    assert sweep(lake) == set()
    assert f"{current} is damaged: its versions stay" in caplog.text
    Path(str(current)).unlink()
    assert sweep(lake) == set()


def test_nothing_is_removed_while_a_needed_manifest_is_damaged(lake: Lake) -> None:
    publish(lake, days=100)
    kept = publish(lake, days=99)
    publish(lake, days=98)
    manifest = kept.path / "manifest.json"
    put_text(manifest, "{")
    with pytest.raises(BadData, match=f"{manifest} is damaged"):
        sweep(lake, keep=2)


def test_a_reader_that_holds_a_removed_version_gets_all_its_rows_or_is_told(lake: Lake) -> None:
    old = publish(lake, days=100)
    publish(lake, days=99)
    old.manifest()
    late = lake.version(str(old))
    with old.parquet("a") as opened:
        sweep(lake)
        assert opened.read()["name"].to_pylist() == [old.name] * 3
    for reader in (old, late):
        with pytest.raises(MissingData, match="housekeeping"):
            reader.read("a")
    with pytest.raises(MissingData, match="housekeeping"):
        late.manifest()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["validated", "features", "training"]),
        st.sampled_from([DAY, NEXT]),
        st.integers(0, 40),
        st.integers(0, 20),
    ),
    min_size=3,
    max_size=16,
)
"""Tables and days that are published, each so many days before the next, from an earlier one."""


@settings(max_examples=12)
@given(steps=STEPS, keep=st.integers(1, 3), registered=st.sets(st.integers(0, 15), max_size=2))
def test_all_that_is_current_or_reachable_stays_readable_whatever_was_published(
    steps: list[tuple[str, str, int, int]], keep: int, registered: set[int]
) -> None:
    with TemporaryDirectory() as folder:
        lake, left = Lake(folder), sum(days for *_, days, _ in steps)
        versions: list[Version] = []
        named: dict[Version, Version] = {}
        for table, key, days, place in steps:
            left -= days
            source = versions[place] if place < len(versions) else None
            versions.append(publish(lake, table, key, left, source=str(source)))
            if source:
                named[versions[-1]] = source
        models = {versions[n] for n in registered if n < len(versions)}
        references = " ".join(map(str, models))
        stays = set(versions) - sweep(lake, references, keep)
        assert all(map(is_whole, stays))
        assert models | {named[version] for version in stays if version in named} <= stays
        for table, key in {(table, key) for table, key, *_ in steps}:
            made = [one for one in versions if (one.table, one.key) == (table, key)]
            assert {lake.current(table, key), *made[-keep:]} <= stays
        assert sweep(lake, references, keep) == set()
