"""The HTTP ports: one application per port, all in one process and one event loop over one pool."""
