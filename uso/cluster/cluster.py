"""The connection to a Ray cluster, one for all workers of a process: made, lost, made again.

Ray's client is one per process. Whoever sees that it is broken says so (`broke`); everybody then waits in `ready` until
it is there again. A generation is one connection: what was made through an earlier one is gone.
"""

import logging
import math
import os
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from typing import Any

import grpc

from uso.cluster.address import Workers, reach
from uso.cluster.door import door_class
from uso.cluster.head import LOOPBACK, LocalHead
from uso.cluster.reasons import is_connection, reason, refusal
from uso.errors import ConfigError, WorkerLost
from uso.language import Text
from uso.system.threads import threads_by_user

logger = logging.getLogger(__name__)

OnProgress = Callable[[str, float], None]

RAY_VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",
    "RAY_CLIENT_RECONNECT_GRACE_PERIOD": "5",
    "RAY_CLIENT_INITIAL_CONNECTION_TIMEOUT_S": "3",
    "RAY_CLIENT_MAX_CONNECTION_TIMEOUT_S": "3",
}
"""Ray sends no statistics, and starts no cluster of its own where a connection is gone. A connection that breaks may
come back within 5 s; one that is not made in three tries of 3 s is refused. What the user has set stays."""

FIRST_TRIES = 3

RETRY_SECONDS = 2.0

PING_SECONDS, MISSED_PINGS = 10.0, 3
"""A head that has not answered for so long is gone, even if its connection still stands: Ray's client waits ten
minutes."""

CLOSE_SECONDS = 20.0


class Cluster:
    """
    Args:
        device: as `--device` says it.
    """

    def __init__(self, workers: Workers, device: str) -> None:
        self.workers = workers
        self.threads = threads_by_user()
        """Of torch, in each worker; None: the worker's share of its machine."""
        self.generation = 0
        self._device = device
        self._lock = threading.Lock()
        self._connected = False
        self._head: LocalHead | None = None
        self._said = ""
        self.ended = False
        """That workers are lost is no news any more."""
        self._gpus = False
        """Whether a worker takes a GPU."""

    @property
    def device(self) -> str:
        """Of each worker: it sees its own GPU alone."""
        return "cuda" if self._gpus else "cpu"

    def connect(self) -> None:
        """Connect for the first time.

        Raises:
            ConfigError: no cluster answers, or not one that has what is asked for.
        """
        with self._lock:
            self._open_at_last()
            there = 0 if self._device == "cpu" else int(self._total("GPU"))
            self._gpus = there > 0 or self._device == "cuda" or not (self._device == "cpu" or self.workers.local)
            if self._gpus and there < (self.workers.count or 1):
                self._check_more(there)

    def _check_more(self, there: int) -> None:
        """Fewer GPUs are there than asked for.

        Raises:
            ConfigError: nobody could bring more.
        """
        has = f"{there or 'no'} GPU{'' if there == 1 else 's'}"
        if self.workers.local:
            raise ConfigError(f"--workers {self.workers.name}: this machine has {has}.")
        if self.workers.count is None:
            raise ConfigError(
                f"The cluster at {self.workers.name} has {has} now. Give --worker-count N, and its autoscaler may "
                "bring some, or --device cpu."
            )
        logger.info("%s has %s; %d workers are asked for.", self.workers.name, has, self.workers.count)

    def count(self) -> int:
        """How many workers it gets."""
        return self.workers.count or (int(self._total("GPU")) if self._gpus else len(self._cpu_nodes()))

    def ready(self, report: OnProgress) -> int:
        """Wait until there is a connection, as long as it takes; returns its generation."""
        while True:
            if not self._connected:
                report(Text("connecting to {}", self.workers.name), 0.0)
            with self._lock:
                try:
                    if not self._connected:
                        self._open()
                    return self.generation
                except ConfigError as error:
                    if str(error) != self._said:
                        logger.warning("%s", error)
                    self._said = str(error)
            time.sleep(RETRY_SECONDS)

    def broke(self, generation: int) -> None:
        """The connection of this generation is of no use any more."""
        with self._lock:
            if generation == self.generation and self._connected:
                self.generation += 1
                self._connected = False
                logger.warning("The connection to %s broke.", self.workers.name)
                _disconnect()

    def lost(self, generation: int, error: BaseException) -> None:
        """An error came out of Ray: if it was the connection's, that one is of no use any more."""
        if is_connection(error):
            self.broke(generation)

    def new_door(self, generation: int, report: OnProgress) -> tuple[Any, dict[str, Any]]:
        """Start an actor on a free GPU, and wait for it as long as it takes.

        Returns:
            the actor, and its answer to `hello`, with `share` beside it: how much of its machine is its own.

        Raises:
            WorkerLost: it was lost again.
        """
        resources: dict[str, Any] = {"num_gpus": 1, "num_cpus": 0}
        if not self._gpus:
            resources = {"num_cpus": self._cpus_each(), "scheduling_strategy": "SPREAD"}
        try:
            door = door_class().options(**resources).remote()
            hello = door.hello.remote().future()
            what = Text("waiting for a GPU") if self._gpus else Text("waiting for a free machine")
            found = wait_for(hello, lambda: report(what, 0.0))
            return door, found | {"share": self._share(found["node_id"])}
        except Exception as error:
            self.lost(generation, error)
            raise WorkerLost(Text("A worker was lost when it started: {}.", reason(error))) from error

    def end(self) -> None:
        self.ended = True
        with self._lock:
            if self._connected:
                self._connected = False
                _disconnect()
            if self._head is not None:
                self._head.end()

    # With `_lock` held.

    def _open_at_last(self) -> None:
        """As `_open`; what the head fails at may work the next time."""
        for _ in range(FIRST_TRIES - 1):
            try:
                self._open()
            except ConfigError as error:
                if not isinstance(error.__cause__, ConnectionAbortedError | RuntimeError):
                    raise
                logger.warning("%s", error)
            else:
                return
        self._open()

    def _open(self) -> None:
        """
        Raises:
            ConfigError: it cannot be reached, or runs another Ray.
        """
        for name, value in RAY_VARIABLES.items():
            os.environ.setdefault(name, value)
        workers = self.workers
        if workers.local:
            self._head = self._head or LocalHead(workers.count or 1, gpus=self._device != "cpu")
            workers = Workers(LOOPBACK, self._head.start(), workers.count)
        reach(workers)
        import ray

        logging.getLogger("ray").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", category=UserWarning, module=r"ray\.util\.client")
        try:
            address = f"ray://{workers.host}:{workers.port}"
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # whatever it was, the next attempt may work
            _disconnect()
            raise ConfigError(refusal(self.workers, error)) from error
        self._connected, self._said = True, ""
        threading.Thread(target=self._watch, args=(self.generation,), name="cluster", daemon=True).start()
        logger.info("Connected to %s.", self.workers.name)

    # The cluster's nodes.

    def _nodes(self) -> list[dict[str, Any]]:
        import ray

        return [node for node in ray.nodes() if node["Alive"]]

    def _total(self, resource: str) -> float:
        return sum(float(node["Resources"].get(resource, 0.0)) for node in self._nodes())

    def _cpu_nodes(self) -> list[float]:
        """The CPUs of each node that has some."""
        found = [float(node["Resources"].get("CPU", 0.0)) for node in self._nodes()]
        return [cpus for cpus in found if cpus >= 1]

    def _cpus_each(self) -> int:
        """So many that a node takes no more workers than its part of them."""
        nodes = self._cpu_nodes() or [1.0]
        on_each = math.ceil((self.workers.count or len(nodes)) / len(nodes))
        return max(1, math.floor(min(nodes) / on_each))

    def _share(self, node_id: str) -> float:
        """What part of a node one worker takes."""
        resource, own = ("GPU", 1) if self._gpus else ("CPU", self._cpus_each())
        total = [float(node["Resources"].get(resource, own)) for node in self._nodes() if node["NodeID"] == node_id]
        return min(1.0, own / max(total, default=own))

    # In a thread.

    def _watch(self, generation: int) -> None:
        from ray.util.client import ray as client

        missed = 0
        while self._connected and self.generation == generation:
            time.sleep(PING_SECONDS)
            try:
                client.get_context().client_worker.ping_server(timeout=PING_SECONDS)
                missed = 0
            except (grpc.RpcError, AttributeError, ValueError):  # ValueError: the channel was just closed
                missed += 1
            if missed >= MISSED_PINGS:
                self.broke(generation)


def wait_for(future: "Future[Any]", meanwhile: Callable[[], None], every: float = 0.5) -> Any:
    """A future's result; `meanwhile` is called until it is there."""
    while True:
        try:
            return future.result(timeout=every)
        except NotYet:
            if future.done():  # it is the result that is such an error
                raise
            meanwhile()


def kill(door: Any) -> None:
    """End an actor, if it can be reached; its GPU is free then."""
    import ray

    with suppress(Exception):
        ray.kill(door)


def _disconnect() -> None:
    """Close Ray's client. It may wait for an answer that never comes, so nobody waits long for it."""
    from ray.util.client import ray as client

    logging.getLogger("ray").setLevel(logging.CRITICAL)  # it would call this an error

    def close() -> None:
        worker = client.get_context().client_worker
        with suppress(Exception):
            if worker is not None:
                worker._in_shutdown = True
                worker.channel.close()
        with suppress(Exception):
            client.disconnect()

    thread = threading.Thread(target=close, name="disconnect", daemon=True)
    thread.start()
    thread.join(CLOSE_SECONDS)
