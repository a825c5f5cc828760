"""Client of a running server: connect, upload, request a picture, follow it, cancel it, fetch it.

Uses `gradio_client`, and plain HTTP where its errors say too little. Knows no flags and writes no files.
"""

import concurrent.futures
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from uso.errors import ConfigError, OutputError, RequestError, USOError
from uso.request.request import ReferenceImage
from uso.system.network import check_network, is_this_machine, proxy_for
from uso.terminal import say

LOGIN = "USO_SERVER_LOGIN"
"""Environment variable with `name:password`; as a flag, both would show in the process list."""

LOOK_SECONDS = 0.1
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0
"""Silence after which the connection counts as broken; a working server sends something every 15 s."""
STOP_SECONDS = 10.0
"""Limit for cancelling a job on the server."""

OnDetails = Callable[[dict[str, Any]], None]
"""Called with the server's details of a job whenever they change."""


class RemoteServer:
    """`with RemoteServer(url) as server:` connects, and logs in if `USO_SERVER_LOGIN` is set."""

    def __init__(self, url: str) -> None:
        """
        Raises:
            ConfigError: `url` is not the address of a web server.
        """
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"--server {url} is not the address of a server. Give one like http://127.0.0.1:7860.")
        self.url = url.rstrip("/")
        self._proxied = not is_this_machine(url)
        """Whether the environment's proxies and certificates count. No proxy leads to this machine."""
        self._client: Any = None
        self._cookies: dict[str, str] = {}

    def __enter__(self) -> "RemoteServer":
        """
        Raises:
            USOError: there is no such server, it is not usable now, or the login failed.
        """
        # Send nothing to anyone else: no telemetry, no Hugging Face token.
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
        with self._in_sentences():
            if self._proxied:
                from httpx import Client

                check_network(Client)
            self._check_state()
            self._log_in()
            self._connect()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    # Making a picture.

    def upload_all(self, contents: Sequence[ReferenceImage], styles: Sequence[ReferenceImage]) -> dict[str, Any]:
        """Upload the references, once for all pictures; returns arguments of `pictures`.

        Raises:
            USOError: one is refused, or the connection broke.
        """
        pairs = ((("content_image",), contents), (("style_image", "extra_style_image"), styles))
        named = [pair for names, images in pairs for pair in zip(names, images, strict=False)]
        return {name: self._upload(image) for name, image in named}

    def pictures(self, values: dict[str, Any], show: OnDetails) -> Iterator[bytes]:
        """Request pictures and wait for them; Ctrl-C, or closing this, cancels the job on the server.

        Args:
            values: arguments of `/generate`; the server's defaults apply to omitted ones.

        Yields:
            The server's PNG files, byte for byte, each as soon as it is finished.

        Raises:
            USOError: the request is refused, failed or was cancelled there, or the connection broke.
        """
        with self._in_sentences():
            job = self._client.submit(**values, api_name="/generate")
            fetched = 0
            try:
                while not job.done():
                    concurrent.futures.wait([job.future], timeout=LOOK_SECONDS)
                    if outputs := job.outputs():
                        show(outputs[-1][1])
                        for made in (outputs[-1][1].get("pictures") or [])[fetched:]:
                            yield self._fetch(made)
                            fetched += 1
                file, details = job.result()
                for made in (details.get("pictures") or [details | {"picture": file}])[fetched:]:
                    yield self._fetch(made)
            except (KeyboardInterrupt, GeneratorExit):
                if not job.done():
                    self._stop(job)
                raise

    def _upload(self, image: ReferenceImage) -> dict[str, str]:
        with self._in_sentences():
            answer = self._post(self._client.upload_url, files=[("files", (image.name, image.data))])
            return {"path": answer.json()[0], "orig_name": image.name}

    def _fetch(self, made: dict[str, Any]) -> bytes:
        import httpx

        file, name = made.get("picture"), made.get("file", "")
        if not file:
            raise OutputError(f"The picture {name} was finished, and is no longer on the server.")
        address = f"{self._client.src_prefixed}file={quote(file['path'])}"
        try:
            answer = httpx.get(address, cookies=self._cookies, **self._options())
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise OutputError(
                f"The picture is finished and kept on the server as {name}, but could not be fetched ({error})."
            ) from error
        data: bytes = answer.content
        return data

    def _stop(self, job: Any) -> None:
        try:
            end = time.monotonic() + STOP_SECONDS
            while not (outputs := job.outputs()) and not job.done() and time.monotonic() < end:
                time.sleep(LOOK_SECONDS)
            reply = self._client.submit(job=outputs[-1][1]["job"], api_name="/cancel").result(timeout=STOP_SECONDS)
        except Exception:
            say("The server could not be told to stop; it will stop by itself once it notices that nobody is waiting.")
            return
        say("The server stops it." if reply["cancelled"] else f"It was over already. {reply['message']}")

    # Connecting.

    def _check_state(self) -> None:
        import httpx

        answer = httpx.get(f"{self.url}/readyz", **self._options())
        try:
            state = answer.json()
            status, error = state["status"], state["error"]
        except (ValueError, KeyError, TypeError):
            raise ConfigError(self._no_server(answer)) from None
        if status == "failed":
            raise ConfigError(f"The server at {self.url} cannot make pictures. {error}")
        if status == "starting":
            say("The server is still starting.")

    def _no_server(self, answer: Any) -> str:
        """Explain an answer that is not from this program's server."""
        if answer.status_code in (502, 503, 504):
            down = f"The server at {self.url}{self._asked()} is starting, or down ({answer.status_code})."
            return f"{down} Try again in a minute."
        if answer.has_redirect_location:
            return f"{self.url} is elsewhere now: it leads to {answer.headers['location']}. Give that address."
        return f"What answers at {self.url}{self._asked()} is not a server of this program ({answer.status_code})."

    def _log_in(self) -> None:
        login = os.environ.get(LOGIN)
        if not login:
            return
        name, colon, password = login.partition(":")
        if not colon:
            raise ConfigError(f"{LOGIN} has the form name:password.")
        answer = self._post(f"{self.url}/login", check=False, data={"username": name, "password": password})
        if answer.status_code in (401, 429):
            raise ConfigError(f"{_detail(answer)} It was taken from {LOGIN}.")
        if answer.is_success:
            self._cookies = dict(answer.cookies)

    def _connect(self) -> None:
        from gradio_client import Client

        self._client = Client(
            self.url,
            token=False,  # None would send a Hugging Face token stored on this machine
            verbose=False,
            analytics_enabled=False,
            download_files=False,
            httpx_kwargs={"cookies": self._cookies, **self._options()},
        )
        if not any(endpoint.api_name == "/generate" for endpoint in self._client.endpoints.values()):
            raise ConfigError(f"What answers at {self.url} is not a server of this program.")

    def _post(self, address: str, check: bool = True, **content: Any) -> Any:
        import httpx

        answer = httpx.post(address, cookies=self._cookies, **self._options(), **content)
        if check:
            answer.raise_for_status()
        return answer

    def _asked(self) -> str:
        """The proxy that stands between, for messages."""
        proxy = proxy_for(self.url) if self._proxied else ""
        return f" through the proxy {proxy}, which the environment names" if proxy else ""

    def _options(self) -> dict[str, Any]:
        """Of every connection."""
        import httpx

        return {"timeout": httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS), "trust_env": self._proxied}

    @contextmanager
    def _in_sentences(self) -> Iterator[None]:
        """Turn errors of the connection into this program's own, with a sentence."""
        import httpx
        from gradio_client.exceptions import AppError, AuthenticationError

        try:
            yield
        except USOError:
            raise
        except AppError as error:
            raise RequestError(error.message) from error
        except AuthenticationError as error:
            raise ConfigError(f"The server at {self.url} requires a login. Set {LOGIN}=name:password.") from error
        except httpx.HTTPStatusError as error:
            raise RequestError(_detail(error.response)) from error
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise ConfigError(
                f"Nothing answers at {self.url}{self._asked()} ({error}). Start it with `python app.py`, or correct "
                "--server."
            ) from error
        except httpx.ProxyError as error:
            raise ConfigError(f"{self.url} cannot be reached{self._asked()} ({error}). Correct the proxy.") from error
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise ConfigError(f"--server {self.url} is not the address of a server ({error}).") from error
        except (httpx.TransportError, concurrent.futures.CancelledError) as error:
            raise USOError(
                f"The connection to {self.url} broke. A picture that was finished meanwhile is kept on the server."
            ) from error
        except ValueError as error:  # raised by gradio_client, with a message
            raise RequestError(f"The server at {self.url} refused it: {error}") from error


def _detail(answer: Any) -> str:
    """The message of a refusal, or its HTTP status if it has none."""
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = None
    return detail if isinstance(detail, str) else f"The server refused it ({answer.status_code})."
