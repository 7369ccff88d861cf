"""How a dataclass of options becomes the options of a verb, and what several verbs take."""
