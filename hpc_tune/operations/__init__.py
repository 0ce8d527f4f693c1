"""What the commands do: functions that return values and print nothing.

Each is imported from its module, so that ``list`` and ``status`` need not wait for what only ``submit`` uses.
"""
