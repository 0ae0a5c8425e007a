"""Secrets are taken out of what others say, in every form in which they may be repeated.

Mask first, then cut: half a secret would not be found.
"""

import base64
import json
from collections.abc import Iterable
from urllib.parse import quote

MASK = "***"
SHORTEST = 5
"""Letters of a secret that is looked for: a shorter one would be found in any text."""


def masked(text: str, secrets: Iterable[str], login: tuple[str, str] | None = None) -> str:
    """A text without secrets.

    Args:
        text: what somebody said.
        secrets: none of which it may repeat.
        login: user and password, as a header of basic authentication has them.
    """
    found = {secret for secret in secrets if len(secret) >= SHORTEST}
    if login is not None and login[1]:
        found.add(base64.b64encode(":".join(login).encode()).decode())
    written = {form for secret in found for form in _forms(secret)}
    for form in sorted(written, key=len, reverse=True):  # one may hold another
        text = text.replace(form, MASK)
    return text


def _forms(secret: str) -> set[str]:
    """How a secret looks in plain text, in JSON, in a Python literal and in a URL."""
    quoted = {quote(secret), quote(secret, safe="")}
    return {secret, json.dumps(secret)[1:-1], repr(secret)[1:-1], *quoted}
