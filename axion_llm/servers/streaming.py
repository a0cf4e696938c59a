"""The streaming port (8083): streams unless the client says otherwise, and the scheduler favours them."""

from __future__ import annotations

from axion_llm.servers.profile import Profile

PROFILE = Profile(
    kind="streaming",
    streams_by_default=True,
    is_interactive=True,
    port_setting="streaming_port",
    port_option="--streaming-port",
)
