"""A round for people: as rows of a table, on a terminal, and as a picture."""
