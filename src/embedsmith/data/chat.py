"""A question to an OpenAI-compatible chat endpoint, asked again where that may help; what went wrong where not."""

import logging
import os
import random
import time
from dataclasses import dataclass, field
from typing import Any

from embedsmith.support.errors import ConfigError, DataError, MissingExtraError

log = logging.getLogger(__name__)

_ATTEMPTS = 6
_LONGEST_PAUSE_S = 60.0
_RETRIED = {408, 409, 425, 429}
_ADVICE = {
    401: "Put a valid key into the environment variable named by --api-key-env.",
    403: "The key may not use this model; check it with whoever runs the endpoint.",
    404: "Check --endpoint (it usually ends in /v1) and --model.",
}


@dataclass
class ChatEndpoint:
    """An endpoint and how to ask it; safe to use from several threads.

    Raises:
        ConfigError: the address is none, or the key holds what no key does.
        MissingExtraError: httpx2 is not installed.

    Attributes:
        url: for example http://localhost:8000/v1
        model: as the endpoint calls it.
        api_key_env: environment variable that holds the key; the key itself is never stored or shown.
        temperature: of the answers.
        timeout_s: of one request.
        pause_s: before the second attempt; doubled for each further one.
    """

    url: str
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    temperature: float = 1.0
    timeout_s: float = 60.0
    pause_s: float = 1.0
    _client: Any = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        try:
            import httpx2
        except ImportError:
            raise MissingExtraError("httpx2", extra="synthesize", needed_for="Asking a chat endpoint") from None
        key = (os.environ.get(self.api_key_env) or "").strip()
        if not key.isascii() or not key.isprintable():
            raise ConfigError(
                f"The key in {self.api_key_env} holds characters that no key has.\nPut a valid one there."
            )
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"--endpoint is {self.url!r}.\nWrite it as in http://localhost:8000/v1")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx2.Client(headers=headers, timeout=self.timeout_s)

    def ask(self, request: str, *, seed: int) -> str:
        """The answer's text.

        Raises:
            DataError: the endpoint cannot be reached, refuses, or does not answer as a chat endpoint does.
        """
        import httpx2

        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": request}],
            "temperature": self.temperature,
            "seed": seed,
        }
        problem = ""
        for attempt in range(_ATTEMPTS):
            pause_s = min(_LONGEST_PAUSE_S, self.pause_s * 2**attempt) * (0.5 + random.random())  # noqa: S311 (jitter)
            try:
                response = self._client.post(f"{self.url.rstrip('/')}/chat/completions", json=body)
            except httpx2.InvalidURL as error:
                raise ConfigError(
                    f"--endpoint is {self.url!r}: {error}.\nWrite it as in http://localhost:8000/v1"
                ) from None
            except httpx2.RequestError as error:
                problem = f"{type(error).__name__} {error}".strip()
            else:
                if response.status_code < 400:
                    return _text_of(response, url=self.url)
                problem = f"status {response.status_code}: {response.text[:200]}"
                if response.status_code not in _RETRIED and response.status_code < 500:
                    advice = _ADVICE.get(response.status_code, "Check --endpoint and --model.")
                    raise DataError(f"The endpoint {self.url} refuses ({problem}).\n{advice}")
                pause_s = _retry_after_s(response) or pause_s
            if attempt < _ATTEMPTS - 1:
                log.info("The endpoint does not answer (%s); asking again in %.0f s.", problem, pause_s)
                time.sleep(pause_s)
        raise DataError(
            f"The endpoint {self.url} does not answer after {_ATTEMPTS} attempts: {problem}\n"
            "Check that it runs, --endpoint and --timeout-s, and start the same command again: it goes on where it was."
        )


def _text_of(response: Any, *, url: str) -> str:
    try:
        text = response.json()["choices"][0]["message"]["content"]
        if isinstance(text, list):  # in parts, of which some models put their thinking into parts of another type
            text = "".join(str(part["text"]) for part in text if part["type"] == "text")
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        raise DataError(
            f"The endpoint {url} does not answer as a chat endpoint does: {response.text[:200]}\nCheck --endpoint."
        ) from None
    return text if isinstance(text, str) else ""


def _retry_after_s(response: Any) -> float | None:
    try:
        return max(0.0, min(_LONGEST_PAUSE_S, float(response.headers["retry-after"])))
    except (KeyError, ValueError):
        return None
