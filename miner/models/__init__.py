"""The weights: what each workflow needs, what is there, and how to get there.

`catalogue` is pure. `store` has the folders, `part` the one way in which a file gets its final name, `records` what
was downloaded and hashed. `download` brings one file, `pull` many; `hub` knows Hugging Face. `cli` is for people.

Nothing is imported here: the worker asks `arrivals` alone, and the command line only what a command needs.
"""
