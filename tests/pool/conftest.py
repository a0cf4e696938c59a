from tests.fakes.processes import socket_root

__all__ = ["socket_root"]
