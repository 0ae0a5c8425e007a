"""Lists and values of any size are shown in part."""

from hypothesis import given
from hypothesis import strategies as st

from include.wording import MOST_CHARACTERS, MOST_LINES, cut, few, listed, quoted

NAMES = st.lists(st.text(max_size=3), max_size=40)


@given(NAMES)
def test_the_first_lines_are_shown_and_the_others_counted(names: list[str]) -> None:
    shown = few(names)
    assert shown[:MOST_LINES] == names[:MOST_LINES]
    rest = len(names) - MOST_LINES
    assert shown[MOST_LINES:] == ([f"and {rest} more like these"] if rest > 0 else [])


def test_names_are_listed_up_to_the_tenth() -> None:
    assert listed("abc") == "a, b, c"
    assert listed(range(20_000)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 19,990 more"


@given(st.text())
def test_a_short_value_is_shown_whole(text: str) -> None:
    assert cut(text) == text or len(text) > MOST_CHARACTERS
    assert quoted(text) == repr(text) or len(text) > MOST_CHARACTERS


@given(st.sampled_from([str, bytes, list]), st.integers(1_000, 100_000))
def test_a_long_value_is_cut(kind: type, length: int) -> None:
    value = {str: "x" * length, bytes: b"\xff" * length, list: [1] * length}[kind]
    assert len(quoted(value)) <= 10 * MOST_CHARACTERS + 1
    assert quoted(value)[:10] == repr(value)[:10]
