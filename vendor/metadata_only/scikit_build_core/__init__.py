"""Stands in for the build backend of llama-cpp-python while pip downloads its source archive.

pip asks a package's build backend for metadata even when it only downloads it, and would install that backend (and its
build tools, from source) first: minutes for nothing. With this folder on PYTHONPATH and without build isolation it asks
`build.py` beside this file, which knows all that pip wants to hear.
"""
