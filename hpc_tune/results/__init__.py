"""From a storage path to tables, without Ray: the only place that knows how results lie on disk.

`tables` is what commands call; `trials`, `resultlog`, `state` and `failure` read; `columns` gives values
their shape.
"""
