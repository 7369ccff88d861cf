"""How frames were understood: the axes of arrays, and the facts in one line."""
