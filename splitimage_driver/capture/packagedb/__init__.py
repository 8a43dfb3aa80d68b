"""Package databases of gold machines, read from their files: nothing of the
machine is run. :mod:`.base` is the door.
"""
