"""The generators: one interface, the table of them, and each of them."""
