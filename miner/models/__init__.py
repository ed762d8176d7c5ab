"""The weights: which files the workflows need, which of them this machine has, and how to download the rest.

Import from the modules: the worker needs `folder_watch` alone, and a command what it uses.
"""
