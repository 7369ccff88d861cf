"""How frames become pictures: one table of colours, one way to draw."""
