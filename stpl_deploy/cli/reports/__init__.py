"""What verbs print: how, and their longer reports."""
