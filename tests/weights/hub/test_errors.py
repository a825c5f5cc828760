"""Refusals and failures of Hub, network and disk are sentences with a remedy; huggingface_hub is real."""

import errno
from pathlib import Path

import pytest
from huggingface_hub import close_session

from tests.support.hub_server import HubServer
from tests.support.tiny_hub import REPO, everything, fetch, model, remote, repository, transformer
from uso.config import Source
from uso.errors import ConfigError, MissingWeightsError, USOError
from uso.weights.hub.cache import Hub
from uso.weights.hub.errors import plain_errors
from uso.weights.hub.files import download, missing, plan_download


def test_gated_repository(server: HubServer, here: Hub) -> None:
    """A bare 401 after an hour of other downloads; a token handed to the storage server."""
    server.repositories[REPO] = repository(gated=True, readers=("hf_good",))
    for token, state in ((False, "no access token is set"), ("hf_bad", "the access token in use does not open it")):
        with pytest.raises(MissingWeightsError) as refusal:
            plan_download(everything(), hub=Hub(here.endpoint, here.cache, token, offline=False))
        assert str(refusal.value) == (
            f"lab/flux is gated, and {state}. Accept its licence on https://huggingface.co/lab/flux, set HF_TOKEN to a "
            "read token of that account (or run `hf auth login`), and run `python -m uso download --model tiny`."
        )
    assert server.bytes_sent == 0
    fetch(everything(), Hub(here.endpoint, here.cache, "hf_good", offline=False))
    assert {request.authorization for request in server.requests if request.storage} == {None}


def test_expired_token(server: HubServer, here: Hub) -> None:
    """ "There is no such repository", said of one that is public, because HF_TOKEN is out of date."""
    server.expired = {"hf_old"}
    with pytest.raises(MissingWeightsError, match="does not accept the access token. Set HF_TOKEN"):
        plan_download(transformer(), hub=Hub(here.endpoint, here.cache, "hf_old", offline=False))


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (remote("a.safetensors", "lab/nothing"), "There is no repository lab/nothing at http.*no access token is set"),
        (remote("flux1.safetensors", revision="v9"), "lab/flux has no revision 'v9'. Correct `revision`"),
        (remote("flux2.safetensors"), "lab/flux has no safetensors file at 'flux2.safetensors'"),
        (remote("flux1.bin"), "no safetensors file at 'flux1.bin'.*only"),
        (remote("tokenizer"), "no safetensors file at 'tokenizer'"),
        (remote("a.safetensors", "lab/flux/extra"), "'lab/flux/extra' is not a repository name"),
    ],
)
def test_wrong_sources_are_refused_in_words(here: Hub, source: Source, sentence: str) -> None:
    """huggingface_hub's own error of six lines with a request id."""
    with pytest.raises(USOError, match=sentence):
        plan_download(model(transformer=source), hub=here)
    if source.repo == "lab/flux/extra":
        with pytest.raises(ConfigError, match=sentence):
            missing(model(transformer=source), hub=here)


def test_no_connection(server: HubServer, here: Hub) -> None:
    """A stack trace, or a wait without end."""
    plan = plan_download(transformer(), hub=here)
    server.stop()
    close_session()
    with pytest.raises(MissingWeightsError, match=r"connection to http.* failed .*Run `python -m uso download"):
        plan_download(transformer(), hub=here)
    with pytest.raises(MissingWeightsError, match="what has arrived is kept"):
        download(transformer(), plan, hub=here)


def test_something_else_than_a_hub_answers(server: HubServer, here: Hub) -> None:
    """A mirror that is not there any more under HF_ENDPOINT."""
    wrong = Hub(f"{server.url}/elsewhere", here.cache, False, offline=False)
    with pytest.raises(MissingWeightsError, match="elsewhere refused lab/flux with status 404"):
        plan_download(transformer(), hub=wrong)


def test_login_page_answers(server: HubServer, here: Hub) -> None:
    """A hotel's network that answers everything with status 200 and a page."""
    server.says = b"<html>Welcome!</html>"
    with pytest.raises(MissingWeightsError, match="does not answer as a Hub does .*Check HF_ENDPOINT"):
        plan_download(transformer(), hub=here)


def test_full_disk_is_noticed_before_the_start(server: HubServer, here: Hub) -> None:
    """A download that fills the disk and fails hours later."""
    server.repositories[REPO].listed_sizes["flux1.safetensors"] = 10**18
    plan = plan_download(transformer(), hub=here)
    server.forget()
    with pytest.raises(MissingWeightsError, match=r"needs 1000000000.0 GB, and the disk that holds .* GB free"):
        download(transformer(), plan, hub=here)
    assert server.requests == []


def test_disk_that_fills_up_on_the_way(here: Hub) -> None:
    """`OSError: [Errno 28]`: another program took the space."""
    with (
        pytest.raises(MissingWeightsError, match="The disk that holds .* is full. Free some space and run `again`"),
        plain_errors(REPO, "main", here, "again"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_cache_that_cannot_be_written(server: HubServer, here: Hub, tmp_path: Path) -> None:
    """A stack trace where the cache is a read-only mount."""
    (tmp_path / "file").write_text("in the way")
    blocked = Hub(here.endpoint, tmp_path / "file" / "hub", False, offline=False)
    with pytest.raises(MissingWeightsError, match=r"cannot be used \(Not a directory\).*set HF_HOME"):
        fetch(transformer(), blocked)
