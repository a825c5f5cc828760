"""What errors of Ray's mean, as sentences and parts of them; the log has all of an error."""

from uso.cluster.address import Workers
from uso.errors import USOError
from uso.language import Text


def is_connection(error: BaseException) -> bool:
    """Whether an error says that the connection broke, and not that one actor is gone."""
    from ray.exceptions import RayError

    return not isinstance(error, RayError | USOError)


def reason(error: BaseException) -> str:
    """What an error of Ray's means, in a few words; the log has all of it."""
    if is_connection(error):
        return Text("the connection to the cluster broke")
    from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayActorError

    if isinstance(error, OutOfMemoryError):
        return Text("its machine ran out of memory")
    if isinstance(error, ActorUnavailableError):
        return Text("it cannot be reached")
    if isinstance(error, RayActorError):
        return Text("its process or its machine has ended")
    return Text("an error of Ray's ({})", type(error).__name__)


def refusal(workers: Workers, error: Exception) -> str:
    said = str(error).strip()
    if "ersion mismatch" in said:
        found = " ".join(line.strip() for line in said.splitlines() if "Ray:" in line or "Python:" in line)
        return (
            f"{workers.name} runs another version of Ray or Python ({found}). Install on its nodes what this machine "
            "has: pip install -r requirements-ray.txt."
        )
    if isinstance(error, ConnectionError) and "timeout" in said:
        return f"What answers at {workers.name} is no head of a Ray cluster, or does not let clients in."
    last = said.splitlines()[-1] if said else type(error).__name__
    return f"Ray does not let this program in at {workers.name}: {last[:300]}"
