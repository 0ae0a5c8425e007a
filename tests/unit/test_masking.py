"""What a server repeats of our secrets is masked, in whatever form and wherever it is cut."""

import base64
import json
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.masking import MASK, masked

FORMS: list[Callable[[str], str]] = [
    str, repr, json.dumps, quote, lambda secret: quote(secret, safe=""),
    lambda secret: base64.b64encode(f"ann:{secret}".encode()).decode(),
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@given(st.text(min_size=8, max_size=30))
def test_a_secret_is_masked_in_every_form(form: Callable[[str], str], secret: str) -> None:
    written = form(secret)[1:-1] if form in (repr, json.dumps) else form(secret)
    assert masked(f"({written})", [secret], ("ann", secret)) == f"({MASK})"


@given(st.text(max_size=40))
def test_text_without_a_secret_is_unchanged(text: str) -> None:
    assert masked(text, ["a secret that is nowhere", "", "abc"], None) == text
