"""Our own routes by our own schema: schemathesis draws calls from `/openapi.json` and holds the answers against it.

The routes take no parameters, so that queries, headers and cookies are drawn on top of what the schema gives.
"""

from typing import Any

import hypothesis
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.core.result import Ok

EXPECTED_OPERATIONS = 3

SENDABLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40)


def by_schema(url: str, examples: int, seed: int) -> tuple[int, list[str]]:
    """(calls made, faults)."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations: list[Any] = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    wrong = [] if len(operations) >= EXPECTED_OPERATIONS else [f"The schema has {len(operations)} operations."]
    tried = 0
    for operation in operations:

        @hypothesis.seed(seed)
        @settings(
            max_examples=max(1, examples // len(operations)),
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(
            operation.as_strategy(),
            st.dictionaries(SENDABLE, SENDABLE, max_size=3),
            st.dictionaries(
                st.sampled_from(["Accept", "Range", "X-Forwarded-For", "Origin", "If-None-Match"]), SENDABLE
            ),
        )
        def strike(case: Any, query: dict[str, str], headers: dict[str, str]) -> None:
            nonlocal tried
            tried += 1
            answer = case.call(base_url=url, params=query, headers=headers)
            try:
                case.validate_response(answer)
            except Exception as error:
                wrong.append(f"{case.method} {case.path} {query} {headers}: {error}"[:400])

        strike()
    return tried, wrong
