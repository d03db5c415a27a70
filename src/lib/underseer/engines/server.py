"""The server of the ``openai`` engine: its address, its key, a client of it, and what its refusals mean."""

from __future__ import annotations

import os

from underseer.engines.client import Client, Failed, Refused, Retries, checked_key, checked_url, names_of
from underseer.engines.replies import FILTERED
from underseer.errors import UserError

URL_VARIABLE, KEY_VARIABLE = "UNDERSEER_OPENAI_URL", "OPENAI_API_KEY"


def connect(url: str, key: str | None, retries: Retries, connections: int = 16) -> Client:
    """A client of the server at an address, as http://127.0.0.1:8000/v1."""

    def refusal(status: int, content: bytes, path: str) -> Exception:
        names = names_of(content)
        filtered = next((name for name in names if FILTERED.search(name)), None)
        if filtered:
            return Refused(f"refused: HTTP {status}, {filtered}")
        name = f", {names[0]}" if names else ""
        if status in (401, 403):
            return UserError(f"the server at {url} refuses the key (HTTP {status}); check {KEY_VARIABLE}")
        if status in (404, 405):
            return UserError(f"the server at {url} has no {path}, or not this model (HTTP {status}{name})")
        return Failed(f"refused: HTTP {status}{name}")

    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return Client(url, headers, refusal=refusal, retries=retries, connections=connections)


def server_url(option: str | None) -> str:
    """The server's address without a closing slash: the option, or the environment's. Raises UserError."""
    url = (option or os.environ.get(URL_VARIABLE, "")).strip().rstrip("/")
    if not url:
        raise UserError(
            f"engine 'openai' needs the address of a server: set {URL_VARIABLE}, as http://127.0.0.1:8000/v1, "
            "or the option url"
        )
    return checked_url(url, f"{URL_VARIABLE} or the option url", "http://host:port/v1")


def server_key() -> str | None:
    """The key from the environment; None where there is none, as a server of one's own needs none."""
    return checked_key(os.environ.get(KEY_VARIABLE, ""), KEY_VARIABLE) or None
