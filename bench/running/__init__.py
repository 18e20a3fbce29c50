"""Everything about processes: the runner, its workers, and what passes between them."""
