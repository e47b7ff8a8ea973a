"""How long tests wait for another process or thread: a loaded machine may be a hundred times as slow as a quiet one."""

PATIENCE = 1800  # seconds; no test has a shorter limit, unless the limit is what it tests
