"""The Ray actor. Ray pickles its class by value, for it is made in a function: the head needs nothing of this program,
and a node with another version of it can say so before any of it runs.
"""

from typing import Any

MODEL, SIDE, WATCH = "model", "side", "watch"
"""Groups of the actor's threads: one thread, in which the model is loaded and used; one for short questions meanwhile;
one that waits for its end."""


def door_class() -> Any:
    """The actor's class; Ray must be connected."""
    import ray

    @ray.remote(concurrency_groups={MODEL: 1, SIDE: 1, WATCH: 1})
    class UsoWorker:
        def __init__(self) -> None:
            self.host: Any = None

        @ray.method(concurrency_group="side")
        def hello(self) -> dict[str, Any]:
            """Where this is, and which version of the program, or why there is none."""
            import socket
            import sys

            import ray

            found = {
                "node": socket.gethostname(),
                "node_id": ray.get_runtime_context().get_node_id(),
                "python": sys.version.split()[0],
                "version": "",
                "missing": "",
            }
            try:
                from uso.version import __version__
            except ImportError as error:
                return found | {"missing": str(error)}
            return found | {"version": __version__}

        @ray.method(concurrency_group="model")
        def open(self, spec: dict[str, Any]) -> Any:
            """Load the model."""
            from uso.cluster.host import Host

            self.host = Host(spec)
            return self.host.answer("load", ())

        @ray.method(concurrency_group="model")
        def call(self, name: str, *values: Any) -> Any:
            return self.host.answer(name, values)

        @ray.method(concurrency_group="side")
        def ask(self, name: str, *values: Any) -> Any:
            """Something short, while the model works."""
            return None if self.host is None else self.host.answer(name, values)

        @ray.method(concurrency_group="watch")
        def stay(self) -> None:
            """Never returns: that it ends is how its end is seen."""
            import threading

            threading.Event().wait()

    return UsoWorker
