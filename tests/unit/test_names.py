"""A name has to do as part of a path, a task, a column and a metric."""

import pytest

from include.names import LONGEST_NAME, check_name


@pytest.mark.parametrize("name", ["a", "Late_payments2", "x" * LONGEST_NAME])
def test_a_name_of_letters_digits_and_underscores_is_accepted(name: str) -> None:
    check_name("input", name)


@pytest.mark.parametrize(
    "name", ["", "2nd", "_x", "a-b", "a b", "a.b", "a\n", "é", "x" * (LONGEST_NAME + 1)]
)
def test_any_other_name_is_refused_and_shown(name: str) -> None:
    with pytest.raises(ValueError, match="must be letters, digits and underscores") as refusal:
        check_name("input", name)
    assert str(refusal.value).startswith(f"input {name!r}: ")
