"""From a free GPU of a cluster to a pipeline: an actor is started there, verified, and told to load its model."""

import logging
import time
from typing import Any

from uso.cluster import wire
from uso.cluster.cluster import Cluster, OnProgress, kill, wait_for
from uso.cluster.pipeline import RemotePipeline
from uso.cluster.reasons import reason
from uso.errors import ConfigError, USOError, WorkerLost
from uso.language import Text
from uso.version import __version__

logger = logging.getLogger(__name__)

TRIES = 3
"""How often in a row a process may end while it loads the model. A cluster that cannot be reached does not count."""

PAUSE_SECONDS = 1.0


def load_remote(cluster: Cluster, spec: dict[str, Any], on_progress: OnProgress) -> RemotePipeline:
    """Load the model on a free GPU of a cluster. Waits for cluster and GPU as long as it takes.

    Args:
        spec: of `address.model_spec`.
        on_progress: called meanwhile; and once more when the pipeline is lost, which may be long after.

    Raises:
        ConfigError: the node has another version of the program, or none.
        USOError: what loading raised there, with the node's name; or its process ended, again and again.
    """
    ended = 0
    while True:
        generation = cluster.ready(on_progress)
        try:
            return _loaded(cluster, generation, spec, on_progress)
        except WorkerLost as lost:
            logger.warning("%s", lost)
            logger.debug("%s", lost.__cause__)
            if cluster.generation == generation:
                ended += 1
            if ended == TRIES:
                raise USOError(Text("{} This was so {} times in a row.", str(lost), TRIES)) from lost
            time.sleep(PAUSE_SECONDS)


def _loaded(cluster: Cluster, generation: int, spec: dict[str, Any], on_progress: OnProgress) -> RemotePipeline:
    door, found = cluster.new_door(generation, on_progress)
    node = str(found["node"])
    try:
        _check_version(found, node)
        mine = {"threads": cluster.threads, "share": found["share"]}
        options = spec["options"] | {"device": cluster.device}

        def meanwhile() -> None:
            answer = door.ask.remote("progress").future().result()
            if answer is not None and answer["value"][0]:
                stage, share = answer["value"]
                on_progress(wire.text_in(stage), share)

        try:
            answer = wait_for(door.open.remote(spec | mine | {"options": options}).future(), meanwhile)
        except Exception as error:
            cluster.lost(generation, error)
            raise WorkerLost(
                Text("A worker on {} was lost while it loaded the model: {}.", node, reason(error))
            ) from error
        if "error" in answer:
            raise _on_node(wire.error_in(answer, node), node)
        logger.info("A worker on %s is ready: %s.", node, answer["value"]["provenance"].get("device", ""))
        return RemotePipeline(cluster, generation, door, node, answer["value"], on_progress)
    except BaseException:
        kill(door)
        raise


def _check_version(found: dict[str, Any], node: str) -> None:
    if found["missing"]:
        raise ConfigError(
            Text(
                "The program is not on {} ({}). Start Ray there with PYTHONPATH set to the program's folder.",
                node,
                found["missing"],
            )
        )
    if found["version"] != __version__:
        raise ConfigError(
            Text(
                "{} has version {} of the program, this machine {}. Install the same.",
                node,
                found["version"],
                __version__,
            )
        )


def _on_node(error: Exception, node: str) -> Exception:
    """The error, with the node's name before its message."""
    if isinstance(error, USOError):
        error.args = (Text("On {}: {}", node, error.args[0]), *error.args[1:])
    return error
