"""Which models there are (registry), and how their files come to this machine (fetch)."""
