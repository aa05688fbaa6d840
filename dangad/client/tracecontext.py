"""The trace that a call belongs to, so that the server's spans of the job belong to it, too.

Used by :mod:`.connection`. OpenTelemetry is not imported here: a program that traces has imported
it already.
"""

from __future__ import annotations

import sys


def present_trace() -> str | None:
    """The present span of OpenTelemetry in the form of W3C's ``traceparent``; None if none is."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
