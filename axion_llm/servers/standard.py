"""The standard port (8082): answers in one piece unless the client asks for a stream."""

from __future__ import annotations

from axion_llm.servers.profile import Profile

PROFILE = Profile(
    kind="standard",
    streams_by_default=False,
    is_interactive=False,
    port_setting="standard_port",
    port_option="--standard-port",
)
